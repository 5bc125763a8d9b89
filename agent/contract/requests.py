"""From a message's bytes to a `Job`, or to the refusal that its client will read.

Nothing here raises: whatever arrives, the answer is a value. A refusal always has an id to be published
under: the one that was sent, if it can be read from what was sent, else a new one.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, from_json

from agent.contract.errors import Code, JobError
from agent.contract.jobs import (
    ImagePart,
    ImageUrl,
    Job,
    Key,
    Message,
    Policy,
    Priority,
    Reply,
    ResponseFormat,
    Sampling,
    Text,
    TextPart,
)
from agent.contract.messages import Inbound
from agent.contract.topics import Kind, Route, Topics, is_identifier

# What a raw payload may say in MQTT 5 user properties. Others are not ours: bridges and brokers add their own.
_PROPERTIES = ("prompt", "model", "max_tokens", "priority", "placement", "stream")
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG"
# Enough of an oversize object to find an id that its sender put first.
_ID_FIRST = re.compile(rb'\s*\{\s*"id"\s*:\s*"([A-Za-z0-9_-]{1,64})"')
# A conversation longer than this is a mistake or an attack; every turn costs memory before the model sees it.
_MAX_MESSAGES = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest payloads, in bytes, that are read at all."""

    text_bytes: int
    image_bytes: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that can never become a job, with all that its answer needs."""

    key: Key
    reply: Reply
    error: JobError


class _Body(Sampling):
    """The JSON object a client may send; its fields are those of the contract and no others."""

    id: str | None = None
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=_MAX_MESSAGES)] | None = None
    image: Text | None = None
    images: Annotated[list[Text], Field(fail_fast=True, min_length=1, max_length=100)] | None = None
    model: Text | None = None
    response_format: ResponseFormat | None = None
    stream: bool = True
    priority: Priority = "normal"
    deadline_s: Annotated[float, Field(gt=0, le=31_536_000)] | None = None
    placement: Policy | None = None
    private: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_stop_is_a_list_of_one(cls, data: dict[str, Any]) -> dict[str, Any]:
        stop = data.get("stop", ())
        if isinstance(stop, str):
            return {**data, "stop": (stop,)}
        if isinstance(stop, list):
            return {**data, "stop": tuple(stop)}
        return {**data, "stop": ()} if stop is None else data

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if self.prompt is not None and self.messages is not None:
            raise PydanticCustomError("both", "give either `prompt` or `messages`, not both")
        if self.prompt is None and self.messages is None:
            raise PydanticCustomError("neither", "give a `prompt` or `messages`")
        if self.images is not None and self.image is not None:
            raise PydanticCustomError("both_images", "give either `image` or `images`, not both")
        if self.messages is not None and (self.image or self.images):
            raise PydanticCustomError("images", "with `messages`, put pictures into their content as image_url parts")
        if self.response_format and (self.response_format.type == "json_schema") != bool(
            self.response_format.json_schema
        ):
            raise PydanticCustomError(
                "schema", "`json_schema` goes with response_format type `json_schema`, and only there"
            )
        return self

    def conversation(self) -> tuple[Message, ...]:
        """Return the turns, a bare prompt being one turn of the user."""
        if self.messages is not None:
            return tuple(self.messages)
        prompt = self.prompt or ""
        pictures = self.images or ([self.image] if self.image else [])
        if not pictures:
            return (Message(role="user", content=prompt),)
        urls = [each if each.startswith("data:") else f"data:;base64,{each}" for each in pictures]
        parts: list[TextPart | ImagePart] = [ImagePart(type="image_url", image_url=ImageUrl(url=url)) for url in urls]
        return (Message(role="user", content=[*parts, TextPart(type="text", text=prompt)]),)


_FIELDS = frozenset(_Body.model_fields)


def read_request(message: Inbound, route: Route, topics: Topics, limits: Limits, new_id: str) -> Job | Refusal:
    """Read a text or image request.

    Args:
        message: what arrived.
        route: its topic, read.
        topics: this node's topics, to judge a response topic by.
        limits: the largest payloads accepted.
        new_id: the id to use if the request brings none.

    """
    reply = _reply(message, route.client, topics)
    sent_id = _id_from_correlation(message)

    def refuse(job_id: str, code: Code, sentence: str) -> Refusal:
        return Refusal(Key(route.client, job_id), reply, JobError(code, sentence))

    limit = limits.text_bytes if route.kind is Kind.TEXT else limits.image_bytes
    if len(message.payload) > limit:
        first = _ID_FIRST.match(message.payload)
        job_id = first[1].decode() if first else sent_id or new_id
        size = len(message.payload)
        return refuse(
            job_id, Code.TOO_LARGE, f"the request has {size:,} bytes, and at most {limit:,} are accepted here"
        )
    if route.kind is Kind.IMAGE and message.payload.startswith((_JPEG, _PNG)):
        return refuse(
            sent_id or new_id, Code.UNSUPPORTED, "this box has no vision model: send frames to a box that has one"
        )
    try:
        fields = _fields(message, route)
    except ValueError as error:
        return refuse(_salvaged_id(message.payload) or sent_id or new_id, Code.BAD_REQUEST, str(error))

    job_id = fields.get("id", sent_id or new_id)
    if not isinstance(job_id, str) or not is_identifier(job_id):
        return refuse(sent_id or new_id, Code.BAD_REQUEST, "`id` must be a string of 1 to 64 of A-Z a-z 0-9 _ -")
    try:
        body = _validated(fields)
    except ValueError as error:
        return refuse(job_id, Code.BAD_REQUEST, str(error))
    return _job(body, Key(route.client, job_id), reply, message.expiry_s)


def read_cancel(message: Inbound) -> str | None:
    """Read which id a cancel names, ``{"id": …}`` or bare; None if it names none."""
    if len(message.payload) > 1024:  # noqa: PLR2004  an id has 64 characters at most
        return None
    try:
        text = message.payload.decode().strip()
        if text.startswith("{"):
            data = from_json(text, allow_inf_nan=False)
            text = data.get("id")
        elif not text:
            return _id_from_correlation(message)
    except ValueError:
        return None
    return text if isinstance(text, str) and is_identifier(text) else None


def _reply(message: Inbound, client: str, topics: Topics) -> Reply:
    correlation = None if message.correlation is None else message.correlation.hex()
    if message.response_topic is None:
        return Reply(correlation=correlation)
    refused = topics.refusal_of_response_topic(message.response_topic, client)
    if refused is None:
        return Reply(topic=message.response_topic, correlation=correlation)
    return Reply(correlation=correlation, notice=f"the response topic was not used: {refused}")


def _id_from_correlation(message: Inbound) -> str | None:
    if message.correlation is None:
        return None
    text = message.correlation.decode("ascii", "replace")
    return text if is_identifier(text) else None


def _salvaged_id(payload: bytes) -> str | None:
    """Find the id in an object that is broken further on."""
    first = _ID_FIRST.match(payload)
    if first:
        return first[1].decode()
    try:
        data = from_json(payload, allow_partial=True)
    except ValueError:
        return None
    found = data.get("id") if isinstance(data, dict) else None
    return found if isinstance(found, str) and is_identifier(found) else None


def _fields(message: Inbound, route: Route) -> dict[str, Any]:
    """Return the request's fields, whether it came as JSON or raw; ValueError with a sentence if neither."""
    payload = message.payload
    if payload.lstrip()[:1] == b"{":
        try:
            data = from_json(payload, allow_inf_nan=False)
        except ValueError as error:
            raise ValueError(f"the request is not valid JSON: {error}") from None
        assert isinstance(data, dict)  # noqa: S101  it starts with a brace and was parsed
        return data
    if route.kind is Kind.IMAGE:
        raise ValueError("an image request is a JPEG, a PNG or a JSON object")
    try:
        prompt = payload.decode()
    except UnicodeDecodeError:
        raise ValueError("a text request is UTF-8 text or a JSON object, and this is neither") from None
    if not prompt.strip():
        raise ValueError("the request is empty: send a prompt, or a JSON object with one")
    return {"prompt": prompt, **_from_properties(message.properties)}


def _from_properties(properties: Mapping[str, str]) -> dict[str, Any]:
    """Read the user properties that are ours; what they spell is checked with the rest."""
    found: dict[str, Any] = {}
    for name in _PROPERTIES[1:]:
        if name not in properties:
            continue
        text = properties[name]
        if name == "max_tokens" and text.isascii() and text.isdigit():
            found[name] = int(text[:20])
        elif name == "stream" and text in ("true", "false"):
            found[name] = text == "true"
        else:
            found[name] = text
    return found


def _validated(fields: dict[str, Any]) -> _Body:
    # Unknown names are looked for by hand, first: pydantic would gather an error for each of a million.
    unknown = next((name for name in fields if name not in _FIELDS), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown[:64], _FIELDS, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(sorted(_FIELDS))}"
        raise ValueError(f"unknown field `{unknown[:64]}`{hint}")
    try:
        return _Body.model_validate(fields)
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    """Turn pydantic's findings into one sentence, about the most deeply placed one."""
    first = max(error.errors(include_url=False, include_context=False), key=lambda each: len(each["loc"]))
    place = ".".join(str(step) for step in first["loc"] if not _is_tag(step))
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"`{place}`: {message}" if place else message


def _is_tag(step: object) -> bool:
    """Tell the names of union members, which pydantic mixes into a location, from fields and indexes."""
    return isinstance(step, str) and (step == "str" or "[" in step or "-" in step)


def _job(body: _Body, key: Key, reply: Reply, expiry_s: int | None) -> Job:
    bounds = [each for each in (body.deadline_s, expiry_s) if each is not None]
    return Job(
        client=key.client,
        id=key.id,
        messages=body.conversation(),
        model=body.model,
        sampling=Sampling.model_validate({name: getattr(body, name) for name in Sampling.model_fields}),
        response_format=body.response_format,
        stream=body.stream,
        priority=body.priority,
        deadline_s=float(min(bounds)) if bounds else None,
        placement=body.placement,
        private=body.private,
        reply=reply,
    )
