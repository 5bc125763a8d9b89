"""What the breaker opens, for how long, and how it closes again."""

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.cloud.breaker import Breaker, Change, Fault

MODEL, OTHER = "text-model", "vision-model"
BUSY = Fault("provider", transient=True, word="not_ready")
DEGRADED = Fault("model", transient=True, word="not_ready")
GONE = Fault("model", transient=False, word="model")
BAD_KEY = Fault("key", transient=False, word="key")
NO_CREDITS = Fault("key", transient=False, word="credits")
TOO_MANY = Fault("provider", transient=False, word="rate_limit")
BAD_REQUEST = Fault("request", transient=False, word="rejected")

HOUR, DAY = 3600.0, 86_400.0


def later(fault: Fault, seconds: float) -> Fault:
    return Fault(fault.scope, fault.transient, fault.word, seconds)


def breaker() -> Breaker:
    """Make one without jitter."""
    return Breaker(lambda: 0.0)


def opened(fault: Fault, *, times: int = 1) -> Breaker:
    """Make one that failed at time zero."""
    found = breaker()
    for _ in range(times):
        found.failed(MODEL, fault, 0.0)
    return found


def open_for(found: Breaker, now: float = 0.0, model: str = MODEL) -> float | None:
    refused = found.refusal(model, now)
    return None if refused is None else refused.until_s - now


@pytest.mark.parametrize(("fault", "seconds"), [(GONE, HOUR), (BAD_KEY, 600.0), (NO_CREDITS, 600.0), (TOO_MANY, 60.0)])
def test_what_does_not_pass_by_itself_opens_its_circuit_at_once(fault: Fault, seconds: float) -> None:
    found = breaker()
    assert found.failed(MODEL, fault, 0.0) == [
        Change(fault.scope, MODEL if fault.scope == "model" else None, "opened", fault.word, seconds)  # type: ignore[arg-type]
    ]
    assert open_for(found) == seconds


def test_an_open_circuit_says_which_and_why_in_a_sentence() -> None:
    refused = opened(BAD_KEY).refusal(MODEL, 1.0)
    assert refused is not None
    assert (refused.scope, refused.word, refused.until_s) == ("key", "key", 600.0)
    assert "give the box a valid one" in refused.sentence


def test_of_several_the_one_that_is_open_longest_is_told() -> None:
    found = opened(TOO_MANY)
    found.failed(MODEL, GONE, 61.0)  # by the probe that finds the provider well again
    found.failed(MODEL, TOO_MANY, 62.0)
    assert open_for(found, 62.0) == HOUR - 1


def test_a_models_circuit_leaves_the_others_alone() -> None:
    assert open_for(opened(GONE), model=OTHER) is None


@pytest.mark.parametrize("fault", [BAD_KEY, TOO_MANY])
def test_what_is_shared_is_open_for_every_model(fault: Fault) -> None:
    assert open_for(opened(fault), model=OTHER) is not None


@pytest.mark.parametrize("fault", [BUSY, DEGRADED])
def test_a_lone_first_failure_that_may_pass_opens_nothing(fault: Fault) -> None:
    assert open_for(opened(fault)) is None


@pytest.mark.parametrize("fault", [BUSY, DEGRADED])
def test_the_second_in_a_row_does(fault: Fault) -> None:
    assert open_for(opened(fault, times=2)) == 10.0


def test_half_of_a_minutes_attempts_may_fail_and_one_more_may_not() -> None:
    found = breaker()
    for _ in range(3):
        found.succeeded(MODEL, 0.0)
    for now in range(1, 4):
        found.failed(MODEL, BUSY, now)
        assert open_for(found, now) is None
    found.failed(MODEL, BUSY, 4.0)
    assert open_for(found, 4.0) == 10.0


def test_what_failed_a_minute_ago_is_forgotten() -> None:
    found = opened(BUSY)
    found.failed(MODEL, BUSY, 60.0)
    assert open_for(found, 60.0) is None


def test_the_endpoints_own_time_is_honoured_at_the_first_failure() -> None:
    assert open_for(opened(later(BUSY, 10_800.0))) == 10_800.0
    assert open_for(opened(later(TOO_MANY, 7.0))) == 7.0


@pytest.mark.parametrize(("asked", "given"), [(0.0, 1.0), (-5.0, 1.0), (1e9, DAY)])
def test_but_not_one_that_makes_no_sense(asked: float, given: float) -> None:
    assert open_for(opened(later(TOO_MANY, asked))) == given


def test_a_bad_request_says_nothing_of_the_endpoint() -> None:
    found = opened(BUSY)
    for _ in range(9):
        assert found.failed(MODEL, BAD_REQUEST, 0.0) == []
    found.failed(MODEL, BUSY, 0.0)
    assert open_for(found) == 10.0


def test_when_its_time_is_over_one_job_probes_and_the_others_wait() -> None:
    found = opened(TOO_MANY)
    assert found.attempt(MODEL, 59.0) is not None
    assert found.attempt(MODEL, 60.0) is None
    assert found.attempt(MODEL, 60.0) is not None
    assert found.refusal(OTHER, 61.0) is not None


def test_asking_whether_is_not_probing() -> None:
    found = opened(TOO_MANY)
    assert found.refusal(MODEL, 60.0) is None
    assert found.attempt(MODEL, 60.0) is None


def test_a_probe_that_goes_well_closes_the_circuit_and_says_how_long_it_was_not() -> None:
    found = opened(TOO_MANY)
    found.attempt(MODEL, 60.0)
    assert found.succeeded(MODEL, 63.0) == [Change("provider", None, "closed", "rate_limit", 63.0)]
    assert found.attempt(MODEL, 63.0) is None
    assert found.attempt(MODEL, 63.0) is None


def test_after_it_a_lone_failure_opens_nothing_again() -> None:
    found = opened(BUSY, times=2)
    found.attempt(MODEL, 10.0)
    found.succeeded(MODEL, 11.0)
    found.failed(MODEL, BUSY, 12.0)
    assert open_for(found, 12.0) is None


@pytest.mark.parametrize(
    ("fault", "most", "times"), [(BUSY, 300.0, 2), (TOO_MANY, 600.0, 1), (BAD_KEY, HOUR, 1), (GONE, DAY, 1)]
)
def test_each_probe_that_fails_doubles_the_time_up_to_a_bound(fault: Fault, most: float, times: int) -> None:
    found, now = opened(fault, times=times), 0.0
    first = open_for(found)
    assert first is not None
    for doubled in range(1, 12):
        refused = found.refusal(MODEL, now)
        assert refused is not None
        now = refused.until_s
        found.attempt(MODEL, now)
        found.failed(MODEL, fault, now)
        assert open_for(found, now) == min(first * 2**doubled, most)


def test_a_time_of_its_own_counts_for_a_failed_probe_if_it_is_longer() -> None:
    found = opened(later(TOO_MANY, 5.0))
    found.failed(MODEL, later(TOO_MANY, 5.0), 5.0)
    assert open_for(found, 5.0) == 10.0
    found.failed(MODEL, later(TOO_MANY, 100.0), 15.0)
    assert open_for(found, 15.0) == 100.0


def test_closed_again_it_begins_with_the_first_time() -> None:
    found = opened(TOO_MANY)
    found.failed(MODEL, TOO_MANY, 60.0)
    found.succeeded(MODEL, 180.0)
    found.failed(MODEL, TOO_MANY, 181.0)
    assert open_for(found, 181.0) == 60.0


def test_a_probe_that_never_ends_gives_way_to_the_next_one() -> None:
    found = opened(TOO_MANY)
    found.attempt(MODEL, 60.0)
    assert open_for(found, 61.0) == 29.0
    assert found.attempt(MODEL, 90.0) is None


def test_a_probe_that_was_a_bad_request_lets_the_next_one_probe_at_once() -> None:
    found = opened(TOO_MANY)
    found.attempt(MODEL, 60.0)
    found.failed(MODEL, BAD_REQUEST, 61.0)
    assert found.attempt(MODEL, 61.0) is None
    assert found.attempt(MODEL, 61.0) is not None


def test_a_bad_key_shows_that_the_provider_is_there_and_says_nothing_of_the_model() -> None:
    found = opened(TOO_MANY)
    found.failed(MODEL, GONE, 60.0)
    found.attempt(MODEL, HOUR + 60)
    assert found.failed(MODEL, BAD_KEY, HOUR + 60) == [Change("key", None, "opened", "key", 600.0)]
    found.attempt(MODEL, HOUR + 660)
    assert [change.scope for change in found.succeeded(MODEL, HOUR + 661)] == ["key", "model"]


def test_a_model_that_ends_again_closes_what_is_before_it() -> None:
    found = opened(BAD_KEY)
    assert [(change.scope, change.state) for change in found.failed(MODEL, GONE, 600.0)] == [
        ("key", "closed"),
        ("model", "opened"),
    ]


def test_what_was_under_way_when_it_opened_neither_closes_it_nor_lengthens_it() -> None:
    found = opened(TOO_MANY)
    assert found.failed(MODEL, TOO_MANY, 1.0) == []
    assert found.succeeded(MODEL, 2.0) == []
    assert open_for(found, 2.0) == 58.0


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 100.0), (0.5, 112.5), (0.999, 124.975)])
def test_boxes_that_failed_together_come_back_apart_and_none_too_early(jitter: float, seconds: float) -> None:
    found = Breaker(lambda: jitter)
    found.failed(MODEL, later(TOO_MANY, 100.0), 0.0)
    assert open_for(found) == pytest.approx(seconds)


FAULTS = [BUSY, DEGRADED, GONE, BAD_KEY, NO_CREDITS, TOO_MANY, BAD_REQUEST, later(BUSY, 50.0), later(TOO_MANY, 1e12)]
Step = tuple[Literal["attempt", "succeeded", "failed"], str, Any, float]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["attempt", "succeeded", "failed"]),
        st.sampled_from([MODEL, OTHER]),
        st.sampled_from(FAULTS),
        st.floats(0, 2000),
    ),
    max_size=60,
)


@given(STEPS, st.floats(0, 1, exclude_max=True))
def test_whatever_happened_it_is_never_shut_for_ever(steps: list[Step], jitter: float) -> None:
    found, now = Breaker(lambda: jitter), 0.0
    for kind, model, fault, pause in steps:
        now += pause
        if kind == "attempt":
            found.attempt(model, now)
        elif kind == "succeeded":
            found.succeeded(model, now)
        else:
            found.failed(model, fault, now)
    assert (open_for(found, now) or 0.0) <= 1.25 * DAY
    for _ in range(4):
        refused = found.refusal(MODEL, now)
        now = now if refused is None else refused.until_s
    assert found.attempt(MODEL, now) is None


@given(STEPS)
def test_what_it_tells_is_opened_and_closed_in_turns(steps: list[Step]) -> None:
    found, now = breaker(), 0.0
    is_open: dict[Any, bool] = {}
    for kind, model, fault, pause in steps:
        now += pause
        if kind == "attempt":
            found.attempt(model, now)
            continue
        for change in found.succeeded(model, now) if kind == "succeeded" else found.failed(model, fault, now):
            which = (change.scope, change.model)
            assert change.state == "opened" or is_open[which]
            is_open[which] = change.state == "opened"
            assert change.for_s >= 0


def test_it_shows_its_state() -> None:
    assert repr(opened(TOO_MANY)) == (
        "<Breaker [<provider open by rate_limit until 60 s, 1 of 1 failed>, <key closed, 0 of 0 failed>, "
        "<text-model closed, 0 of 0 failed>]>"
    )
