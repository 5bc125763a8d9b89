"""A job's body holds what it asks, in the endpoint's words, and nothing else of it."""

import base64
import json
from typing import Any

import pytest

from agent.contract.errors import Code
from agent.contract.jobs import (
    Detail,
    Frame,
    Job,
    JsonSchema,
    Message,
    PicturePart,
    Reply,
    ResponseFormat,
    Sampling,
    TextPart,
)
from agent.engines.cloud import request
from agent.engines.cloud.presets import Preset, endpoint
from agent.settings import Cloud

_JPEG = b"\xff\xd8\xff\xd9"
_URL = "data:image/jpeg;base64," + base64.b64encode(_JPEG).decode()


def preset(name: str = "nim") -> Preset:
    return endpoint(Cloud.model_validate({"preset": name, "base_url": "https://host/v1"})).preset


def job(*messages: Message, **fields: Any) -> Job:
    return Job(client="c", id="1", messages=messages or (Message(role="user", content="hi"),), **fields)


def body(asked: Job, name: str = "nim", *, count_usage: bool = True) -> dict[str, Any]:
    made = request.body(asked, "m", [_JPEG] * 9, preset(name), max_tokens=77, count_usage=count_usage)
    found: dict[str, Any] = json.loads(made)
    return found


def shown(detail: Detail = "auto", *, name: str = "nim") -> Any:
    part = PicturePart(type="picture", index=0, detail=detail)
    asked = job(Message(role="user", content=[TextPart(type="text", text="what?"), part]), pictures=(_JPEG,))
    return body(asked, name)["messages"][0]["content"]


def test_only_what_was_asked_for_is_sent() -> None:
    assert body(job()) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 77,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_sampling_goes_along() -> None:
    sampling = Sampling(max_tokens=5, temperature=0.0, top_p=0.5, seed=0, stop=("a", "b"))
    made = body(job(sampling=sampling))
    assert {name: made[name] for name in ("max_tokens", "temperature", "top_p", "seed", "stop")} == {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 0,
        "stop": ["a", "b"],
    }


def test_usage_is_not_asked_for_where_that_was_refused() -> None:
    assert "stream_options" not in body(job(), count_usage=False)


def test_the_turns_of_a_conversation_go_as_they_are() -> None:
    turns = [("system", "be brief"), ("user", "1+1?"), ("assistant", "2"), ("user", "+1?")]
    asked = job(*(Message.model_validate({"role": role, "content": text}) for role, text in turns))
    assert [(turn["role"], turn["content"]) for turn in body(asked)["messages"]] == turns


def test_text_in_parts_goes_as_one_string() -> None:
    parts = [TextPart(type="text", text="a"), TextPart(type="text", text="b")]
    assert body(job(Message(role="user", content=[*parts])))["messages"][0]["content"] == "a\nb"


def test_pictures_go_before_the_text_where_the_endpoint_wants_them_there() -> None:
    assert shown() == [{"type": "image_url", "image_url": {"url": _URL}}, {"type": "text", "text": "what?"}]


def test_pictures_stay_where_they_are_elsewhere() -> None:
    assert [part["type"] for part in shown(name="ollama")] == ["text", "image_url"]


@pytest.mark.parametrize(
    ("name", "detail", "sent"),
    [("github", "low", "low"), ("github", "auto", None), ("azure", "high", "high"), ("nim", "low", None)],
)
def test_detail_goes_where_it_is_known(name: str, detail: Detail, sent: str | None) -> None:
    (picture,) = (part for part in shown(detail, name=name) if part["type"] == "image_url")
    assert picture["image_url"].get("detail") == sent


def test_nothing_of_who_asked_is_sent() -> None:
    secret = "whoami"  # noqa: S105
    asked = Job(
        client=secret,
        id=secret,
        messages=(Message(role="user", content="hi"),),
        camera=secret,
        frame=Frame(similar_bits=3),
        priority="high",
        deadline_s=123.0,
        placement="prefer_cloud",
        reply=Reply(topic=secret, correlation=secret),
    )
    assert body(asked) == body(job())


@pytest.mark.parametrize("name", ["github", "azure", "ollama", "llamacpp"])
def test_a_schema_goes_in_openais_shape(name: str) -> None:
    schema = JsonSchema.model_validate({"schema": {"type": "object"}})
    asked = job(response_format=ResponseFormat(type="json_schema", json_schema=schema))
    assert body(asked, name)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"schema": {"type": "object"}, "name": "answer"},
    }


_TOP_K = {"sampling": Sampling(top_k=1)}
_JSON = {"response_format": ResponseFormat(type="json_object")}


@pytest.mark.parametrize(
    ("name", "wish", "refused"),
    [
        ("nim", _TOP_K, True),
        ("nim", _JSON, True),
        ("nim", {"response_format": ResponseFormat(type="text")}, False),
        ("nim", {}, False),
        ("github", _TOP_K, True),
        ("github", _JSON, False),
        ("azure", _TOP_K, True),
        ("azure", _JSON, False),
        ("ollama", _TOP_K, True),
        ("ollama", _JSON, False),
        ("llamacpp", _TOP_K, False),
        ("llamacpp", _JSON, False),
    ],
)
def test_a_wish_that_the_endpoint_does_not_know_is_refused_and_not_left_out(
    name: str, wish: dict[str, Any], refused: bool
) -> None:
    refusal = request.refusal(job(**wish), preset(name))
    assert (refusal is not None and (refusal.code, refusal.word)) == (refused and (Code.UNSUPPORTED, "rejected"))


def test_a_wish_that_is_known_goes_along() -> None:
    assert body(job(**_TOP_K), "llamacpp")["top_k"] == 1
