"""Where a job runs, decided on plain values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.errors import NO_VISION, Code, JobError
from agent.contract.jobs import Policy
from agent.placement import Box, Decision, Place, Station, Where, place
from tests.jobs.tickets import job

TEXT, VISION, CLOUD = Place("smollm2-135m"), Place("phi-3.5-vision"), Place("microsoft/phi-3.5-mini-instruct")
ONE: dict[Station, Place] = {"text": TEXT}
BOTH: dict[Station, Place] = {"text": TEXT, "vision": VISION}
WITH_CLOUD: dict[Station, Place] = {**BOTH, "cloud": CLOUD}
PICTURES: dict[str, Any] = {"pictures": (b"\xff\xd8\xff",)}
BROKEN = JobError(Code.MODEL_UNAVAILABLE, "the model's files are damaged", 30.0)
FULL = JobError(Code.QUEUE_FULL, "64 jobs wait here already", 4.0)
DOWN = JobError(Code.CLOUD_UNAVAILABLE, "the endpoint has failed lately", 60.0, reason="breaker")
PRIVATE = JobError(Code.PRIVACY, "pictures stay on this box")


def box(
    stations: dict[Station, Place] | None = None,
    policy: Policy = "prefer_local",
    *,
    text: Place = TEXT,
    cloud: Place | None = CLOUD,
) -> Box:
    if stations is None:
        stations = {"text": text} if cloud is None else {"text": text, "cloud": cloud}
    return Box(stations, policy)


def refusal(of: Box, left_s: float | None = None, **fields: Any) -> JobError:
    decision = place(job("j", **fields), of, left_s=left_s)
    assert isinstance(decision, JobError)
    return decision


def way(of: Box, left_s: float | None = None, **fields: Any) -> tuple[Where, str]:
    """Return where the job goes, and why."""
    decision = place(job("j", **fields), of, left_s=left_s)
    assert isinstance(decision, Decision), decision
    return decision.where, decision.reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "preferred"),
        ({"placement": "prefer_local"}, "preferred"),
        ({"placement": "local_only"}, "required"),
        ({"private": True}, "required"),
        ({"placement": "prefer_cloud"}, "no_cloud"),
        ({"model": "smollm2-135m"}, "preferred"),
    ],
)
def test_a_job_runs_locally_and_the_reason_says_why(fields: dict[str, Any], reason: str) -> None:
    assert place(job("j", **fields), Box(ONE)) == Decision("local", reason, "text", "smollm2-135m")


@pytest.mark.parametrize(
    ("stations", "fields", "station"),
    [
        (BOTH, {}, "text"),
        (BOTH, PICTURES, "vision"),
        (BOTH, {"model": "phi-3.5-vision"}, "vision"),
        (BOTH, {**PICTURES, "model": "phi-3.5-vision"}, "vision"),
        (BOTH, {"camera": "porch"}, "text"),
        ({"vision": VISION}, {}, "vision"),
        ({"vision": VISION}, PICTURES, "vision"),
        (WITH_CLOUD, {"model": CLOUD.model}, "cloud"),
    ],
)
def test_pictures_go_to_the_vision_model_and_text_to_the_text_model_if_there_is_one(
    stations: dict[Station, Place], fields: dict[str, Any], station: Station
) -> None:
    decision = place(job("j", **fields), Box(stations))
    assert isinstance(decision, Decision)
    assert decision.station == station


def test_where_two_models_have_one_name_pictures_go_to_the_one_that_sees() -> None:
    decision = place(job("j", model="m", **PICTURES), Box({"text": Place("m"), "vision": Place("m")}))
    assert decision == Decision("local", "preferred", "vision", "m")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"placement": "cloud_only"}, Code.CLOUD_UNAVAILABLE),
        ({"model": "phi-3.5-mini"}, Code.MODEL_UNAVAILABLE),
        (PICTURES, Code.UNSUPPORTED),
    ],
)
def test_what_this_box_will_never_do_is_refused_for_good(fields: dict[str, Any], code: Code) -> None:
    refused = refusal(Box(ONE), **fields)
    assert (refused.code, refused.can_retry) == (code, False)


@pytest.mark.parametrize("fields", [{}, {"model": "smollm2-135m"}, {"placement": "cloud_only"}])
def test_pictures_need_a_vision_model_before_anything_else(fields: dict[str, Any]) -> None:
    assert refusal(Box(ONE), **PICTURES, **fields).message == NO_VISION


def test_pictures_for_the_text_model_by_name_are_unsupported() -> None:
    refused = refusal(Box(BOTH), **PICTURES, model="smollm2-135m")
    assert (refused.code, refused.message) == (
        Code.UNSUPPORTED,
        "`smollm2-135m` reads text alone: leave `model` out, or name `phi-3.5-vision` for pictures",
    )


@pytest.mark.parametrize(
    ("stations", "message"),
    [
        (ONE, "this box serves `smollm2-135m`: leave `model` out, or name that"),
        (BOTH, "this box serves `smollm2-135m` and `phi-3.5-vision`: leave `model` out, or name one of those"),
    ],
)
def test_a_model_that_is_not_here_is_refused_with_those_that_are(stations: dict[Station, Place], message: str) -> None:
    assert refusal(Box(stations), model="phi-3.5-mini").message == message


def test_a_model_that_cannot_load_is_refused_for_now() -> None:
    assert refusal(box(text=Place("smollm2-135m", BROKEN), cloud=None)) == BROKEN


@pytest.mark.parametrize(
    ("stations", "fields"),
    [
        ({"text": TEXT, "vision": Place("phi-3.5-vision", BROKEN)}, {}),
        ({"text": Place("smollm2-135m", BROKEN), "vision": VISION}, PICTURES),
    ],
)
def test_a_model_that_cannot_load_refuses_nothing_of_the_other(
    stations: dict[Station, Place], fields: dict[str, Any]
) -> None:
    assert isinstance(place(job("j", **fields), Box(stations)), Decision)


@pytest.mark.parametrize(
    ("text", "left_s", "reason"),
    [
        (Place("m", ends_s=5.0), 4.0, "deadline"),
        (Place("m", FULL), None, "queue"),
        (Place("m", BROKEN), None, "model"),
        (Place("m", saturated="queue"), None, "queue"),
        (Place("m", saturated="wait"), None, "wait"),
        (Place("m", saturated="memory"), None, "memory"),
        (Place("m", ends_s=1.0, saturated="heat"), 4.0, "heat"),
    ],
)
def test_what_this_box_cannot_do_in_time_or_should_not_goes_to_the_cloud(
    text: Place, left_s: float | None, reason: str
) -> None:
    assert way(box(text=text), left_s) == ("cloud", reason)


@pytest.mark.parametrize("word", ["queue", "wait"])
def test_a_job_that_is_foreseen_to_be_in_time_stays_however_long_the_queue(word: str) -> None:
    assert way(box(text=Place("m", ends_s=3.0, saturated=word)), 4.0) == ("local", "preferred")


def test_a_box_without_a_cloud_goes_on_though_it_is_saturated() -> None:
    assert way(box(text=Place("m", saturated="heat"), cloud=None)) == ("local", "preferred")


def test_a_saturated_box_does_what_the_cloud_does_not() -> None:
    assert way(box(text=Place("m", saturated="heat"), cloud=Place("c", DOWN))) == ("local", "preferred")


@pytest.mark.parametrize(
    ("policy", "fields", "expected"),
    [
        ("prefer_cloud", {}, ("cloud", "preferred")),
        ("cloud_only", {}, ("cloud", "required")),
        ("local_only", {}, ("local", "required")),
        ("local_only", {"placement": "prefer_cloud"}, ("local", "required")),
        ("prefer_local", {"placement": "prefer_cloud"}, ("cloud", "preferred")),
        ("prefer_local", {"placement": "cloud_only"}, ("cloud", "required")),
        ("prefer_cloud", {"placement": "prefer_local"}, ("local", "preferred")),
        ("prefer_cloud", {"placement": "local_only"}, ("local", "required")),
        ("prefer_cloud", {"private": True}, ("local", "required")),
        ("cloud_only", {"placement": "prefer_local"}, ("cloud", "required")),
    ],
)
def test_a_job_chooses_among_the_places_that_its_box_allows(
    policy: Policy, fields: dict[str, Any], expected: tuple[Where, str]
) -> None:
    assert way(box(policy=policy), **fields) == expected


@pytest.mark.parametrize(
    ("policy", "fields", "code"),
    [
        ("local_only", {"placement": "cloud_only"}, Code.CLOUD_UNAVAILABLE),
        ("cloud_only", {"placement": "local_only"}, Code.PRIVACY),
        ("cloud_only", {"private": True}, Code.PRIVACY),
        ("prefer_local", {"placement": "cloud_only", "private": True}, Code.PRIVACY),
    ],
)
def test_a_job_that_its_box_allows_no_place_is_refused_for_good(
    policy: Policy, fields: dict[str, Any], code: Code
) -> None:
    refused = refusal(box(policy=policy), **fields)
    assert (refused.code, refused.can_retry) == (code, False)


@pytest.mark.parametrize(
    ("cloud", "reason"), [(Place("c", DOWN), "fallback"), (Place("c", PRIVATE), "required"), (None, "no_cloud")]
)
def test_what_prefers_the_cloud_runs_here_where_that_cannot(cloud: Place | None, reason: str) -> None:
    assert way(box(policy="prefer_cloud", cloud=cloud)) == ("local", reason)


def test_what_can_be_in_time_nowhere_is_refused_with_how_long_it_would_take() -> None:
    refused = refusal(box(text=Place("m", ends_s=9.5), cloud=Place("c", ends_s=6.0)), 4.0)
    assert (refused.code, refused.retry_after_s) == (Code.DEADLINE, 2.0)
    assert refused.message.startswith("here: the job would take up to 9.5 s, and its deadline is in 4.0 s")


@pytest.mark.parametrize(("likely_s", "left_s"), [(None, 4.0), (4.5, 4.0)])
def test_what_is_late_and_not_only_out_of_caution_is_refused(likely_s: float | None, left_s: float) -> None:
    assert refusal(box(text=Place("m", ends_s=5.0, likely_s=likely_s), cloud=None), left_s).code is Code.DEADLINE


def test_an_idle_place_tries_what_only_caution_would_refuse_if_no_other_can() -> None:
    idle = Place("m", ends_s=5.0, likely_s=3.9)
    assert way(box(text=idle, cloud=None), 4.0) == ("local", "preferred")
    assert way(box(text=idle), 4.0) == ("cloud", "deadline")


def test_nothing_is_refused_for_a_deadline_while_nothing_is_foreseen() -> None:
    assert way(box(), 0.001) == ("local", "preferred")


def test_a_refusal_says_what_is_wrong_in_each_place_and_when_the_first_may_be_better() -> None:
    refused = refusal(box(text=Place("m", FULL), cloud=Place("c", DOWN)))
    assert refused.as_dict() == {
        "code": "queue_full",
        "message": "here: 64 jobs wait here already; in the cloud: the endpoint has failed lately",
        "retryable": True,
        "retry_after_s": 4.0,
    }


def test_the_reason_of_a_refusal_is_the_preferred_places_word() -> None:
    assert refusal(box(policy="cloud_only", cloud=Place("c", DOWN))).word == "breaker"


@pytest.mark.parametrize(("first", "then"), [("local", "cloud"), ("cloud", "local")])
def test_what_failed_in_one_place_goes_to_the_other_as_a_fallback(first: Where, then: Where) -> None:
    policy: Policy = "prefer_local" if first == "local" else "prefer_cloud"
    decision = place(job("j"), box(policy=policy), tried=((first, DOWN),))
    assert isinstance(decision, Decision)
    assert (decision.where, decision.reason) == (then, "fallback")


def test_what_failed_everywhere_is_told_what_was_tried() -> None:
    error = place(job("j"), box(), tried=(("local", BROKEN), ("cloud", DOWN)))
    assert isinstance(error, JobError)
    assert error.message == "here: the model's files are damaged; in the cloud: the endpoint has failed lately"


_refusals = st.sampled_from([None, BROKEN, FULL, DOWN, PRIVATE])
_places = st.builds(
    Place,
    st.just("m"),
    _refusals,
    st.none() | st.floats(0, 100),
    st.none(),
    st.sampled_from([None, "queue", "wait", "memory", "heat"]),
)
_policies = st.sampled_from(["prefer_local", "local_only", "prefer_cloud", "cloud_only"])


@given(
    stations=st.fixed_dictionaries({"text": _places}, optional={"vision": _places, "cloud": _places}),
    policy=_policies,
    asked=st.none() | _policies,
    private=st.booleans(),
    pictures=st.booleans(),
    left_s=st.none() | st.floats(-10, 100),
)
def test_no_job_goes_where_it_may_not_cannot_or_would_be_late(
    stations: dict[Station, Place],
    policy: Policy,
    asked: Policy | None,
    private: bool,
    pictures: bool,
    left_s: float | None,
) -> None:
    fields = {"placement": asked, "private": private, **(PICTURES if pictures else {})}
    decision = place(job("j", **fields), Box(stations, policy), left_s=left_s)
    if isinstance(decision, JobError):
        return
    chosen = stations[decision.station]
    assert chosen.refusal is None
    assert left_s is None or chosen.ends_s is None or chosen.ends_s <= left_s
    if private or "local_only" in (policy, asked):
        assert decision.where == "local"
    if "cloud_only" in (policy, asked):
        assert decision.where == "cloud"
    assert decision.station != "text" or not pictures
