"""The wall clock is set, and it is noticed by how much."""

import pytest

from agent.clock import WallClock

DAY = 86_400.0


@pytest.mark.parametrize("by_s", [DAY, -DAY, 2.5])
def test_a_clock_that_is_set_is_said_to_be_by_how_much(by_s: float) -> None:
    clock = WallClock(1000.0, 10.0)
    assert clock.jumped(1005.0 + by_s, 15.0) == by_s


def test_time_that_passes_is_no_jump() -> None:
    assert WallClock(1000.0, 10.0).jumped(1000.0 + DAY, 10.0 + DAY) is None


def test_a_second_is_no_jump() -> None:
    assert WallClock(1000.0, 10.0).jumped(1006.0, 15.0) is None


def test_small_steps_add_up_to_a_jump() -> None:
    clock = WallClock(1000.0, 10.0)
    assert [clock.jumped(1000.0 + step + 1.5 * step, 10.0 + step) for step in (1, 2)] == [None, 3.0]


def test_a_jump_is_told_until_it_is_noted() -> None:
    clock = WallClock(1000.0, 10.0)
    assert clock.jumped(1000.0 + DAY, 10.0) == clock.jumped(1001.0 + DAY, 11.0) == DAY
    clock.noted(DAY)
    assert clock.jumped(1002.0 + DAY, 12.0) is None
