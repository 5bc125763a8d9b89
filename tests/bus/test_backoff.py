from agent.backoff import Backoff


def test_the_ceiling_doubles_up_to_the_most() -> None:
    backoff = Backoff(0.5, 3.0, lambda: 1.0)

    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_the_delay_is_drawn_from_all_below_the_ceiling() -> None:
    drawn = iter([0.0, 0.25])
    backoff = Backoff(1.0, 60.0, lambda: next(drawn))

    assert [backoff.next(), backoff.next()] == [0.0, 0.5]


def test_a_reset_starts_over() -> None:
    backoff = Backoff(0.5, 60.0, lambda: 1.0)
    backoff.next()
    backoff.reset()

    assert backoff.next() == 0.5
