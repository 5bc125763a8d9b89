"""Where a job runs, decided on plain values."""

from typing import Any

import pytest

from agent.contract.errors import NO_VISION, Code, JobError
from agent.placement import Box, Decision, Model, Station, place
from tests.jobs.tickets import job

TEXT, VISION = Model("smollm2-135m"), Model("phi-3.5-vision")
BOTH = Box(TEXT, VISION)
PICTURES = {"pictures": (b"\xff\xd8\xff",)}


def refusal(box: Box, **fields: Any) -> JobError:
    decision = place(job("j", **fields), box)
    assert isinstance(decision, JobError)
    return decision


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
    assert place(job("j", **fields), Box(TEXT)) == Decision("local", reason, "text")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("box", "fields", "engine"),
    [
        (BOTH, {}, "text"),
        (BOTH, PICTURES, "vision"),
        (BOTH, {"model": "phi-3.5-vision"}, "vision"),
        (BOTH, {**PICTURES, "model": "phi-3.5-vision"}, "vision"),
        (BOTH, {"camera": "porch"}, "text"),
        (Box(vision=VISION), {}, "vision"),
        (Box(vision=VISION), PICTURES, "vision"),
    ],
)
def test_pictures_go_to_the_vision_model_and_text_to_the_text_model_if_there_is_one(
    box: Box, fields: dict[str, Any], engine: Station
) -> None:
    assert place(job("j", **fields), box) == Decision("local", "preferred", engine)


def test_where_two_models_have_one_name_pictures_go_to_the_one_that_sees() -> None:
    assert place(job("j", model="m", **PICTURES), Box(Model("m"), Model("m"))) == Decision(
        "local", "preferred", "vision"
    )


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"placement": "cloud_only"}, Code.CLOUD_UNAVAILABLE),
        ({"model": "phi-3.5-mini"}, Code.MODEL_UNAVAILABLE),
        (PICTURES, Code.UNSUPPORTED),
    ],
)
def test_what_this_box_will_never_do_is_refused_for_good(fields: dict[str, Any], code: Code) -> None:
    refused = refusal(Box(TEXT), **fields)
    assert (refused.code, refused.as_dict()["retryable"]) == (code, False)


@pytest.mark.parametrize("fields", [{}, {"model": "smollm2-135m"}, {"placement": "cloud_only"}])
def test_pictures_need_a_vision_model_before_anything_else(fields: dict[str, Any]) -> None:
    assert refusal(Box(TEXT), **PICTURES, **fields).message == NO_VISION


def test_pictures_for_the_text_model_by_name_are_unsupported() -> None:
    refused = refusal(BOTH, **PICTURES, model="smollm2-135m")
    assert (refused.code, refused.message) == (
        Code.UNSUPPORTED,
        "`smollm2-135m` reads text alone: leave `model` out, or name `phi-3.5-vision` for pictures",
    )


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (Box(TEXT), "this box serves `smollm2-135m`: leave `model` out, or name that"),
        (BOTH, "this box serves `smollm2-135m` and `phi-3.5-vision`: leave `model` out, or name one of those"),
    ],
)
def test_a_model_that_is_not_here_is_refused_with_those_that_are(box: Box, message: str) -> None:
    assert refusal(box, model="phi-3.5-mini").message == message


def test_a_model_that_cannot_load_is_refused_for_now() -> None:
    assert refusal(Box(Model("smollm2-135m", "the model's files are damaged"))).as_dict() == {
        "code": "model_unavailable",
        "message": "the model's files are damaged",
        "retryable": True,
        "retry_after_s": 30.0,
    }


@pytest.mark.parametrize(
    ("box", "fields"),
    [
        (Box(TEXT, Model("phi-3.5-vision", "it is damaged")), {}),
        (Box(Model("smollm2-135m", "it is damaged"), VISION), PICTURES),
    ],
)
def test_a_model_that_cannot_load_refuses_nothing_of_the_other(box: Box, fields: dict[str, Any]) -> None:
    assert isinstance(place(job("j", **fields), box), Decision)
