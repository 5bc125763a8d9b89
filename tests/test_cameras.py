"""What is asked about each camera: the configuration, and over it the retained topic."""

import json
from typing import Any

import pytest

from agent.cameras import Cameras
from agent.contract.jobs import Frame
from agent.settings import Camera, Source
from tests.jobs.tickets import job


def asked(cameras: Cameras, camera: str = "porch", client: str = "dev7") -> Any:
    return cameras.defaults(camera, client).fields.get("prompt")


@pytest.fixture
def cameras() -> Cameras:
    configured = {
        "porch": Camera(prompt="Who is it?", min_interval_s=2, skip_similar=3),
        "safe": Camera(prompt="Is it shut?", private=True, placement="local_only"),
    }
    return Cameras(configured, {"frigate": Source(topic="frigate/{camera}/+/snapshot", prompt="What is seen?")})


def test_the_configured_camera_has_its_policy(cameras: Cameras) -> None:
    found = cameras.defaults("porch", "dev7")
    assert found.fields == {"prompt": "Who is it?", "detail": "auto", "priority": "normal", "private": False}
    assert found.frame == Frame(min_interval_s=2, similar_bits=3)


def test_a_camera_that_nobody_configured_has_no_question(cameras: Cameras) -> None:
    assert asked(cameras, "attic") is None


def test_a_sources_question_is_for_cameras_that_have_none(cameras: Cameras) -> None:
    assert [asked(cameras, each, "frigate") for each in ("attic", "porch")] == ["What is seen?", "Who is it?"]


def test_what_is_told_goes_over_what_is_configured(cameras: Cameras) -> None:
    assert cameras.tell("porch", b'{"prompt": "Is it a cat?", "detail": "low"}') is None
    found = cameras.defaults("porch", "dev7")
    assert (found.fields["prompt"], found.fields["detail"], found.frame.min_interval_s) == ("Is it a cat?", "low", 2)


def test_what_is_told_last_stands_alone(cameras: Cameras) -> None:
    cameras.tell("porch", b'{"detail": "low"}')
    cameras.tell("porch", b'{"max_tokens": 5}')
    found = cameras.defaults("porch", "dev7").fields
    assert (found["detail"], found["max_tokens"]) == ("auto", 5)


def test_an_empty_message_takes_the_last_one_back(cameras: Cameras) -> None:
    cameras.tell("porch", b'{"prompt": "Is it a cat?"}')
    cameras.tell("porch", b"")
    assert asked(cameras) == "Who is it?"


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"{", "EOF while parsing"),
        (b"[]", "it is no JSON object"),
        (b'{"promt": "x"}', "`promt`: Extra inputs are not permitted"),
        (b'{"min_interval_s": 1e999}', "`min_interval_s`: Input should be a finite number"),
        (b'{"min_interval_s": "inf"}', "`min_interval_s`: Input should be a finite number"),
        (b'{"detail": "lo"}', "`detail`: Input should be 'low', 'auto' or 'high'"),
        (b'{"prompt": "%s"}' % (b"x" * 9_000), "it has 9,014 bytes"),
    ],
)
def test_a_bad_message_is_told_and_the_last_good_one_stands(cameras: Cameras, payload: bytes, problem: str) -> None:
    cameras.tell("porch", b'{"prompt": "Is it a cat?"}')
    assert str(cameras.tell("porch", payload)).startswith(problem)
    assert asked(cameras) == "Is it a cat?"


@pytest.mark.parametrize(
    "payload",
    [b'{"private": true, "promt": "x"}', b'{"placement": "local_only", "detail": 3}', b'{"private": true, "prom'],
)
def test_after_a_bad_message_the_pictures_stay_here_until_a_good_one_comes(cameras: Cameras, payload: bytes) -> None:
    assert cameras.tell("porch", payload) is not None
    assert cameras.keeps(job("j", camera="porch"))
    assert asked(cameras) == "Who is it?"
    assert cameras.tell("porch", b"{}") is None
    assert not cameras.keeps(job("j", camera="porch"))


def test_a_camera_is_kept_by_what_is_told_now_and_others_and_texts_are_not(cameras: Cameras) -> None:
    cameras.tell("porch", b'{"placement": "local_only"}')
    jobs = [job("j", camera=camera) for camera in ("porch", "safe", "attic", None)]
    assert [cameras.keeps(each) for each in jobs] == [True, True, False, False]


def test_what_the_configuration_keeps_on_the_box_is_not_let_out_over_mqtt(cameras: Cameras) -> None:
    cameras.tell("safe", json.dumps({"private": False, "placement": "prefer_cloud"}).encode())
    found = cameras.defaults("safe", "dev7").fields
    assert (found["private"], found["placement"]) == (True, "local_only")


def test_the_cameras_that_are_told_of_are_bounded(cameras: Cameras) -> None:
    told = [cameras.tell(f"camera{number}", b"{}") for number in range(1001)]
    assert told[:1000] == [None] * 1000
    assert "there are 1,000 cameras already" in str(told[1000])
