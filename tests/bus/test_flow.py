from agent.bus.flow import INBOUND_HIGH, LIGHTEST, Inflow, Watermarks


def test_a_level_is_over_above_its_high_mark() -> None:
    marks = Watermarks(10, 4)
    marks.add(10)
    at_the_mark = marks.over
    marks.add(1)

    assert (at_the_mark, marks.over) == (False, True)


def test_a_level_stays_over_until_it_is_at_its_low_mark() -> None:
    marks = Watermarks(10, 4)
    marks.add(11)
    marks.remove(6)
    above_low = marks.over
    marks.remove(1)

    assert (above_low, marks.over) == (True, False)


def test_small_messages_are_bounded_by_count() -> None:
    inflow = Inflow(lambda: None)
    for _ in range(INBOUND_HIGH // LIGHTEST + 1):
        inflow.add(1)

    assert inflow.over


def test_large_messages_are_bounded_by_bytes() -> None:
    inflow = Inflow(lambda: None)
    for _ in range(5):
        inflow.add(8 << 20)

    assert inflow.over


def test_room_is_told_once_when_it_is_made() -> None:
    told: list[str] = []
    inflow = Inflow(lambda: told.append("room"))
    weights = [inflow.add(8 << 20) for _ in range(5)]
    for weight in weights:
        inflow.remove(weight)

    assert told == ["room"]
