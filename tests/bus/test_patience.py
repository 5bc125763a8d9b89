"""How long the session waits between connections, in simulated time."""

import heapq
from collections.abc import Iterator
from random import Random

from agent.bus.events import Cause, End
from agent.bus.patience import Patience

DAY_S = 86_400.0


def swaps(cause: Cause, seed: int) -> Iterator[float]:
    """Yield when one of two boxes of one name throws the other out."""
    random = Random(seed)
    boxes = [Patience("edge-slm-box1", random.random) for _ in range(2)]
    connects = [(0.0, 0), (5.0, 1)]
    online: int | None = None
    since = 0.0
    while True:
        now, box = heapq.heappop(connects)
        if online is not None:
            delay_s, _ = boxes[online].after(End("the connection was lost", cause), now - since)
            heapq.heappush(connects, (now + delay_s, online))
            yield now
        online, since = box, now


def a_day_of(cause: Cause, seed: int) -> list[float]:
    found: list[float] = []
    for when in swaps(cause, seed):
        if when > DAY_S:
            return found
        found.append(when)
    return found


def test_two_boxes_of_one_name_swap_a_few_times_an_hour() -> None:
    # 12 and 101 are usual.
    days = [a_day_of("taken_over", seed) for seed in range(20)]
    assert max(sum(when < 3600 for when in day) for day in days) <= 20
    assert max(len(day) for day in days) <= 24 * 6


def test_a_box_that_was_thrown_out_never_comes_back_at_once() -> None:
    patience = Patience("edge-slm-box1", lambda: 0.0)
    assert patience.after(End("x", "taken_over"), 100.0)[0] == 30.0


def test_being_thrown_out_after_hours_in_place_starts_over() -> None:
    patience = Patience("edge-slm-box1", lambda: 1.0)
    delays = [patience.after(End("x", "taken_over"), lasted_s)[0] for lasted_s in (1, 1, 1, 1800, 4000)]
    assert delays == [90.0, 150.0, 270.0, 510.0, 90.0]


def test_it_says_what_to_do_about_a_second_box_of_the_name() -> None:
    _, reason = Patience("edge-slm-box1", lambda: 0.0).after(End("x", "taken_over"), 1.0)
    assert reason == (
        "another client has connected as edge-slm-box1, so the broker dropped this one: "
        "if two boxes have the same device.id, give one of them another"
    )


def test_short_connections_in_a_row_are_explained_from_the_third_on() -> None:
    patience = Patience("edge-slm-box1", lambda: 0.0)
    reasons = [patience.after(End("the connection was lost"), 1.0)[1] for _ in range(3)]
    assert reasons[:2] == ["the connection was lost"] * 2
    assert reasons[2] == (
        "the connection was lost, 3 times in a row within seconds: look in the broker's log whether another client"
        " connects as edge-slm-box1, or a packet is larger than it takes"
    )


def test_a_connection_that_lasted_ends_the_row() -> None:
    patience = Patience("edge-slm-box1", lambda: 0.0)
    reasons = [patience.after(End("the connection was lost"), lasted_s)[1] for lasted_s in (1, 1, 60, 1, 1)]
    assert set(reasons) == {"the connection was lost"}
