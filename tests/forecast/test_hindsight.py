import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.forecast.hindsight import Hindsight

durations = st.floats(1e-3, 1e3)


def test_before_anything_has_ended_a_seventh_is_allowed_for_and_no_error_is_claimed() -> None:
    assert Hindsight().slack == 1.15
    assert Hindsight().error is None


@given(st.floats(1, 1.5))
def test_the_slack_becomes_what_nine_in_ten_need(ratio: float) -> None:
    hindsight = Hindsight()
    for number in range(64):
        hindsight.ended(2.0, 2 * ratio if number % 5 == 0 else 2.0)

    assert hindsight.slack == pytest.approx(ratio)


def test_a_few_late_jobs_do_not_change_it() -> None:
    hindsight = Hindsight()
    for number in range(64):
        hindsight.ended(2.0, 20.0 if number % 16 == 0 else 2.0)

    assert hindsight.slack == pytest.approx(1.0)


@pytest.mark.parametrize("real_s", [math.inf, math.nan, 0.0, -1.0])
def test_what_is_no_duration_is_left_out(real_s: float) -> None:
    hindsight = Hindsight()
    hindsight.ended(1.0, real_s)
    hindsight.ended(real_s, real_s)

    assert hindsight.ratios == []


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=80))
def test_whatever_ends_the_slack_stays_within_its_bounds(ended: list[tuple[float, float]]) -> None:
    hindsight = Hindsight()
    for predicted_s, real_s in ended:
        hindsight.ended(predicted_s, real_s)

    assert 1 <= hindsight.slack <= 1.5


def test_the_error_is_told_as_a_share_of_the_real_time() -> None:
    hindsight = Hindsight()
    for real_s in (*[1.0] * 7, *[2.0] * 3):
        hindsight.ended(1.0, real_s)

    assert hindsight.error == (0.0, 0.5)


@given(st.lists(st.tuples(durations, durations), max_size=80))
def test_another_goes_on_from_what_was_seen(ended: list[tuple[float, float]]) -> None:
    hindsight = Hindsight()
    for predicted_s, real_s in ended:
        hindsight.ended(predicted_s, real_s)
    other = Hindsight(hindsight.ratios)

    assert other.slack == pytest.approx(hindsight.slack, abs=0.001)
    assert len(other.ratios) <= 64
