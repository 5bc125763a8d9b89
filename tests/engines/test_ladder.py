"""Which provider comes next, decided on plain state."""

from pathlib import Path

import pytest

from agent.engines.ladder import Ladder
from agent.engines.spec import Rung

CUDA, WEB, CPU = (Rung(name, Path("model")) for name in ("cuda", "WebGPU", "cpu"))
MINUTES = 60.0
DAY = 86_400.0


def fall(ladder: Ladder, now: float, *, lived_s: float | None = None, lasting: bool = False) -> bool:
    """Choose a rung and have it fail, to load or after it has lived for some time."""
    ladder.choose(now)
    if lived_s is not None:
        ladder.stands(now)
    return ladder.fell("it broke", now + (lived_s or 0.0), lasting=lasting)


def test_the_preferred_rung_is_first_and_the_others_follow_as_those_before_them_fail() -> None:
    ladder = Ladder([CUDA, WEB, CPU])
    chosen = []
    for _ in range(3):
        chosen.append(ladder.choose(0.0))
        ladder.fell("it broke", 0.0)

    assert chosen == [CUDA, WEB, CPU]


def test_the_last_rung_is_kept_however_often_it_fails() -> None:
    ladder = Ladder([CUDA, CPU])
    assert fall(ladder, 0.0)
    assert not fall(ladder, 0.0)
    assert not fall(ladder, 0.0)

    assert ladder.choose(0.0) == CPU


def test_one_that_died_at_work_is_set_aside_as_one_that_did_not_load() -> None:
    ladder = Ladder([CUDA, CPU])
    fall(ladder, 0.0, lived_s=5.0)

    assert ladder.choose(5.0) == CPU


def test_a_rung_that_was_set_aside_is_tried_again_after_ten_minutes() -> None:
    ladder = Ladder([CUDA, CPU])
    fall(ladder, 0.0)

    assert ladder.choose(10 * MINUTES - 1) == CPU
    assert ladder.choose(10 * MINUTES) == CUDA


def test_each_further_failure_doubles_its_time_up_to_a_day() -> None:
    ladder, now, waits = Ladder([CUDA, CPU]), 0.0, []
    for _ in range(9):
        fall(ladder, now)
        ladder.choose(now)
        aside_s = next(s for s in range(60, 2 * int(DAY), 60) if ladder.due(now + s))
        waits.append(aside_s / MINUTES)
        now += aside_s

    assert waits == [10, 20, 40, 80, 160, 320, 640, 1280, 1440]


@pytest.mark.parametrize(("lived_s", "minutes"), [(19 * MINUTES, 40), (20 * MINUTES, 10)])
def test_a_rung_begins_anew_once_it_has_lived_as_long_as_it_was_kept_away(lived_s: float, minutes: int) -> None:
    ladder = Ladder([CUDA, CPU])
    fall(ladder, 0.0)
    fall(ladder, 10 * MINUTES)
    fall(ladder, 30 * MINUTES, lived_s=lived_s)
    died = 30 * MINUTES + lived_s
    ladder.choose(died)

    assert not ladder.due(died + minutes * MINUTES - 1)
    assert ladder.due(died + minutes * MINUTES)


def test_what_no_waiting_brings_is_never_tried_again() -> None:
    ladder = Ladder([CUDA, CPU])
    fall(ladder, 0.0, lasting=True)

    assert ladder.choose(1000 * DAY) == CPU
    assert not ladder.due(1000 * DAY)


def test_a_better_rung_waits_ten_minutes_for_a_moment_that_suits() -> None:
    ladder = Ladder([CUDA, CPU])
    fall(ladder, 0.0)
    ladder.choose(0.0)

    assert [(ladder.due(minute * MINUTES), ladder.overdue(minute * MINUTES)) for minute in (9, 10, 19, 20)] == [
        (False, False),
        (True, False),
        (True, False),
        (True, True),
    ]


def test_a_worse_rung_is_never_due() -> None:
    ladder = Ladder([CUDA, CPU])
    ladder.choose(0.0)

    assert not ladder.due(DAY)


def test_why_the_preferred_rung_is_not_in_use_is_told_while_another_is() -> None:
    ladder = Ladder([CUDA, WEB, CPU])
    assert ladder.detail is None
    fall(ladder, 0.0)
    fall(ladder, 0.0)
    ladder.choose(0.0)
    ladder.stands(0.0)
    assert ladder.detail == "cuda is not used: it broke"
    ladder.choose(10 * MINUTES)

    assert ladder.detail is None


def test_a_failure_of_the_only_rung_is_no_reason_against_a_provider() -> None:
    ladder = Ladder([CPU])
    fall(ladder, 0.0)

    assert ladder.detail is None
