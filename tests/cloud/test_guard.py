"""What may leave the box, and that everything else stays."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.errors import Code
from agent.contract.jobs import Frame, Job, Message, PicturePart, TextPart
from agent.engines.cloud.guard import refusal
from tests.contract.pictures import JPEG

MIB = 1 << 20
PICTURE = PicturePart(type="picture", index=0)


def job(content: Any = "What is the capital of France?", **fields: Any) -> Job:
    return Job(client="dev7", id="j1", messages=(Message(role="user", content=content),), **fields)


def stays(found: Job, frames: Any = "allowed") -> bool:
    error = refusal(found, frames)
    assert error is None or (error.code, error.word) == (Code.PRIVACY, "privacy")
    return error is not None


@pytest.mark.parametrize("placement", [None, "prefer_local", "prefer_cloud", "cloud_only"])
def test_a_text_that_nobody_keeps_here_may_leave(placement: Any) -> None:
    assert not stays(job(placement=placement), "never")


@pytest.mark.parametrize("placement", [None, "prefer_local", "prefer_cloud", "cloud_only"])
def test_a_private_job_stays_whatever_else_it_asks_for(placement: Any) -> None:
    assert stays(job(private=True, placement=placement))


def test_a_local_only_job_stays() -> None:
    assert stays(job(placement="local_only"))


@pytest.mark.parametrize(
    "found",
    [
        job([PICTURE], pictures=(JPEG,)),
        job([PICTURE]),
        job(pictures=(JPEG,)),
        job(camera="porch"),
        job(frame=Frame()),
    ],
    ids=["picture", "part alone", "file alone", "camera alone", "frame alone"],
)
def test_a_picture_and_what_is_said_of_one_leave_only_where_the_box_allows_it(found: Job) -> None:
    assert stays(found, "never")
    assert not stays(found, "allowed")


@pytest.mark.parametrize("frames", ["Allowed", "always", "", None, True])
def test_a_setting_that_is_not_known_lets_no_picture_out(frames: Any) -> None:
    assert stays(job([PICTURE], pictures=(JPEG,)), frames)


@pytest.mark.parametrize("placement", ["cloud", "Local_only", "", 0])
def test_a_policy_that_is_not_known_keeps_the_job_here(placement: Any) -> None:
    assert stays(job().model_copy(update={"placement": placement}))


@pytest.mark.parametrize("private", [None, 0, "", "false"])
def test_what_is_not_plainly_not_private_is(private: Any) -> None:
    assert stays(job().model_copy(update={"private": private}))


def test_a_kind_of_content_that_is_not_known_counts_as_a_picture() -> None:
    message = Message(role="user", content="x").model_copy(update={"content": [object()]})
    assert stays(job().model_copy(update={"messages": (message,)}), "never")


@pytest.mark.parametrize(
    "text",
    [
        '<img src="data:image/jpeg;base64,/9j/4AAQ" />',
        "Look: DATA:IMAGE/PNG;BASE64,iVBORw0KGgo",
        "data:image/svg+xml,<svg/>",
        '<audio src="data:audio/wav;base64,UklGR" />',
        "data:;base64,/9j/4AAQ",
    ],
)
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_picture_that_is_written_into_a_text_stays_since_nobody_has_cleaned_it(text: str, role: Any) -> None:
    hidden = Message(role=role, content=[TextPart(type="text", text="What is it?"), TextPart(type="text", text=text)])
    assert stays(job().model_copy(update={"messages": (*job().messages, hidden)}))


@pytest.mark.parametrize("text", ["What does <img src=x> mean?", "the data: an image, base64, and text", "data:,x"])
def test_a_text_about_pictures_may_leave(text: str) -> None:
    assert not stays(job(text), "never")


@given(
    st.booleans(),
    st.sampled_from([None, "prefer_local", "local_only", "prefer_cloud", "cloud_only"]),
    st.booleans(),
    st.sampled_from(["never", "allowed"]),
)
def test_the_strictest_of_all_rules_holds(private: bool, placement: Any, shows: bool, frames: Any) -> None:
    found = job([PICTURE] if shows else "x", pictures=(JPEG,) if shows else (), private=private, placement=placement)
    assert stays(found, frames) == (private or placement == "local_only" or (shows and frames == "never"))


@pytest.mark.parametrize("text", ["data:" * (8 * MIB // 5), "DATA:;" * (8 * MIB // 6), "data:" + " " * (8 * MIB)])
def test_the_longest_text_is_looked_through_at_once(text: str) -> None:
    hostile = job(text)
    begun = time.process_time()
    refusal(hostile, "allowed")
    assert time.process_time() - begun < 0.5
