"""Where a job runs, decided on plain values."""

from typing import Any

import pytest

from agent.contract.errors import Code, JobError
from agent.contract.jobs import ImagePart, ImageUrl, Job, Message
from agent.placement import Box, Decision, place

BOX = Box("smollm2-135m")


def job(**fields: Any) -> Job:
    return Job(client="c", id="j", **{"messages": (Message(role="user", content="x"),), **fields})


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
    assert place(job(**fields), BOX) == Decision("local", reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"placement": "cloud_only"}, Code.CLOUD_UNAVAILABLE),
        ({"model": "phi-3.5-mini"}, Code.MODEL_UNAVAILABLE),
    ],
)
def test_what_this_box_will_never_do_is_refused_for_good(fields: dict[str, Any], code: Code) -> None:
    refused = place(job(**fields), BOX)
    assert isinstance(refused, JobError)
    assert (refused.code, refused.as_dict()["retryable"]) == (code, False)


def test_a_picture_is_unsupported() -> None:
    picture = ImagePart(type="image_url", image_url=ImageUrl(url="data:;base64,AAAA"))
    refused = place(job(messages=(Message(role="user", content=[picture]),)), BOX)
    assert isinstance(refused, JobError)
    assert refused.code is Code.UNSUPPORTED


def test_a_model_that_cannot_load_is_refused_for_now() -> None:
    refused = place(job(), Box("smollm2-135m", "the model's files are damaged"))
    assert isinstance(refused, JobError)
    assert refused.as_dict() == {
        "code": "model_unavailable",
        "message": "the model's files are damaged",
        "retryable": True,
        "retry_after_s": 30.0,
    }
