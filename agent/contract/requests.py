"""From a message's bytes to a `Job`, or to the refusal that its client will read.

Nothing here raises: whatever arrives, the answer is a value. A refusal always has an id to be published
under: the one that was sent, if it can be read from what was sent, else a new one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from agent.contract.body import Body, Bounds, read_body
from agent.contract.errors import NO_FRAMES_IN_A_POOL, Code, JobError
from agent.contract.jobs import Frame, Job, Key, Reply, Sampling
from agent.contract.messages import Inbound
from agent.contract.topics import Kind, Route, Topics, is_identifier

# What a raw payload may say in MQTT 5 user properties. Others are not ours: bridges and brokers add their own.
_PROPERTIES = ("model", "max_tokens", "priority", "placement", "private", "stream")
_FRAME_PROPERTIES = ("prompt", "detail", *_PROPERTIES)
_FRAME = (b"\xff\xd8\xff", b"\x89PNG")  # JPEG, PNG
_BOM = b"\xef\xbb\xbf"
# `bytes.lstrip` would copy the payload to look at one character; `*+` does not go back over a megabyte of spaces.
_OBJECT = re.compile(rb"\s*+\{")
# An id that its sender put first, which can be found whatever follows, in an oversize payload too.
_ID_FIRST = re.compile(rb'(?:\xef\xbb\xbf)?\s*+\{\s*+"id"\s*+:\s*+"([A-Za-z0-9_-]{1,64})"')
_FIRST_BYTES = 256
# Of an object that is broken further on, what is read a second time for its id.
_SALVAGED_BYTES = 64 << 10
# An image request may be large because of its pictures, and base64 has none of JSON's own signs. So much of these takes
# 20 ms to parse; 8 MiB of them take a second, on the event loop.
_MAX_SIGNS = 65_536
_SIGNS = (b",", b"{", b"[")
# Correlation data goes out with every chunk, and a chunk is often one word: beyond this it would cost the link and
# the subscribers' queues more than the answer. A UUID has 36 bytes, a W3C traceparent 55.
_MAX_ECHO_BYTES = 256
# What a camera's policy says to keep its pictures here, by the request's field that says the same.
_STRICTEST = {"private": True, "placement": "local_only"}
# Ours are shorter. Pydantic and the JSON parser word some of them, and may come to repeat what a client sent.
_MAX_SENTENCE = 400


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest requests that are read at all.

    Attributes:
        text_bytes: on the text topic.
        image_bytes: on an image topic, raw or JSON.
        pictures: how many a job may bring, and of how many pixels each.

    """

    text_bytes: int
    image_bytes: int
    pictures: Bounds


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a camera's requests ask for where they do not say, and how its raw frames are thinned out.

    Attributes:
        fields: of a request's JSON object. A camera that is private, or local only, stays so whatever a request says.

    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    frame: Frame = field(default_factory=Frame)


_NONE = Defaults()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that can never become a job, with all that its answer needs; ``camera``, ``named`` as in `Job`."""

    key: Key
    reply: Reply
    error: JobError
    camera: str | None = None
    named: bool = True


def read_request(
    message: Inbound, route: Route, topics: Topics, limits: Limits, new_id: str, defaults: Defaults = _NONE
) -> Job | Refusal:
    """Read a text or image request.

    Args:
        message: what arrived.
        route: its topic, read.
        topics: this node's topics, to judge a response topic by.
        limits: the largest payloads accepted.
        new_id: the id to use if the request brings none.
        defaults: its camera's, for an image request.

    """
    reply = _reply(message, route, topics)
    sent_id = _id_from_correlation(message)

    def refuse(job_id: str | None, error: ValueError | JobError) -> Refusal:
        code, sentence = (error.code, error.message) if isinstance(error, JobError) else (Code.BAD_REQUEST, str(error))
        short = sentence if len(sentence) <= _MAX_SENTENCE else f"{sentence[:_MAX_SENTENCE]}…"
        key = Key(route.client, job_id or sent_id or new_id)
        return Refusal(key, reply, JobError(code, short), route.camera, named=key.id != new_id)

    unread = _unread(message.payload, route, limits)
    if unread is not None:
        return refuse(_first_id(message.payload), unread)
    frame = message.payload if route.kind is Kind.IMAGE and is_frame(message.payload) else None
    try:
        fields = _fields(message, route, raw=frame is not None)
    except ValueError as error:
        return refuse(_salvaged_id(message.payload), error)
    job_id = fields.get("id")
    if job_id is not None and not (isinstance(job_id, str) and is_identifier(job_id)):
        return refuse(None, ValueError("`id` must be a string of 1 to 64 of A-Z a-z 0-9 _ -"))
    key = Key(route.client, job_id or sent_id or new_id)
    try:
        body = read_body(_over(defaults.fields, fields), _no_prompt(route, topics))
        messages, pictures = body.conversation(limits.pictures, frame)
    except (ValueError, JobError) as error:
        return refuse(key.id, error)
    if route.kind is Kind.IMAGE and not pictures:
        missing = "an image request needs a picture: `image`, `images`, or image_url parts in its `messages`"
        return refuse(key.id, ValueError(missing))
    return _job(
        body,
        key,
        message,
        reply,
        messages=messages,
        pictures=pictures,
        camera=route.camera,
        frame=None if frame is None else defaults.frame,
        named=key.id != new_id,
    )


def is_frame(payload: bytes) -> bool:
    """Whether a payload is a raw frame, by its first bytes."""
    return payload.startswith(_FRAME)


def read_cancel(message: Inbound) -> str | None:
    """Read which id a cancel names, ``{"id": …}`` or bare; None if it names none."""
    if len(message.payload) > 1024:  # noqa: PLR2004  an id has 64 characters at most
        return None
    try:
        text = message.payload.decode().strip()
        if text.startswith("{"):
            data = from_json(text, allow_inf_nan=False, cache_strings=False)
            text = data.get("id")
        elif not text:
            return _id_from_correlation(message)
    except ValueError:
        return None
    return text if isinstance(text, str) and is_identifier(text) else None


def _reply(message: Inbound, route: Route, topics: Topics) -> Reply:
    topic, correlation = message.response_topic, message.correlation
    notices = []
    refused = None if topic is None else topics.refusal_of_response_topic(topic, route.client, route.pool)
    if refused is not None:
        topic = None
        notices.append(f"the response topic was not used: {refused}")
    if correlation is not None and len(correlation) > _MAX_ECHO_BYTES:
        correlation = None
        notices.append(f"the correlation data was not echoed: it is longer than {_MAX_ECHO_BYTES} bytes")
    return Reply(
        topic=topic,
        pool=route.pool,
        correlation=None if correlation is None else correlation.hex(),
        notice="; ".join(notices) or None,
    )


def _id_from_correlation(message: Inbound) -> str | None:
    if message.correlation is None:
        return None
    text = message.correlation.decode("ascii", "replace")
    return text if is_identifier(text) else None


def _first_id(payload: bytes) -> str | None:
    first = _ID_FIRST.match(payload, 0, _FIRST_BYTES)
    return first[1].decode() if first else None


def _salvaged_id(payload: bytes) -> str | None:
    """Find the id in an object that is broken further on."""
    first = _first_id(payload)
    if first is not None:
        return first
    try:
        data = from_json(payload[:_SALVAGED_BYTES].removeprefix(_BOM), allow_partial=True, cache_strings=False)
    except ValueError:
        return None
    found = data.get("id") if isinstance(data, dict) else None
    return found if isinstance(found, str) and is_identifier(found) else None


def _fields(message: Inbound, route: Route, *, raw: bool) -> dict[str, Any]:
    """Return the request's fields, whether it came as JSON or raw; ValueError with a sentence if neither."""
    if not message.readable:
        # Not run as if it had none: they may have said where it must stay.
        raise ValueError("the MQTT 5 properties cannot be read: send them as the standard has them, without U+FEFF")
    if raw:
        return _from_properties(message.properties, _FRAME_PROPERTIES)
    payload = message.payload.removeprefix(_BOM)  # no copy is made where there is none
    if _OBJECT.match(payload):
        try:
            # Uncached: pydantic keeps 16,384 short strings otherwise, every id and short prompt, long after their job.
            data = from_json(payload, allow_inf_nan=False, cache_strings=False)
        except ValueError as error:
            raise ValueError(f"the request is not valid JSON: {error}") from None
        assert isinstance(data, dict)  # noqa: S101  it starts with a brace and was parsed
        # The one property that counts beside JSON: whoever writes it there means it.
        kept = _from_properties(message.properties, ("private",))
        return data if kept.get("private") in (None, False) else {**data, **kept}
    if route.kind is Kind.IMAGE:
        raise ValueError("an image request is a JPEG, a PNG or a JSON object")
    try:
        prompt = payload.decode()
    except UnicodeDecodeError:
        raise ValueError("a text request is UTF-8 text or a JSON object, and this is neither") from None
    if not prompt.strip():
        raise ValueError("the request is empty: send a prompt, or a JSON object with one")
    return {"prompt": prompt, **_from_properties(message.properties)}


def _no_prompt(route: Route, topics: Topics) -> str:
    if route.camera is None:
        return "give a `prompt` or `messages`"
    return (
        f"nothing is asked about the camera {route.camera}: set `cameras.{route.camera}.prompt` on the box, publish "
        f"one to {topics.camera_config(route.camera)}, or send a `prompt` (with a raw frame, as an MQTT 5 property)"
    )


def _unread(payload: bytes, route: Route, limits: Limits) -> JobError | None:
    """Say why a payload is not read at all, or None if it is."""
    if route.pool is not None and route.kind is Kind.IMAGE:
        return JobError(Code.UNSUPPORTED, NO_FRAMES_IN_A_POOL)
    limit = limits.image_bytes if route.kind is Kind.IMAGE else limits.text_bytes
    if len(payload) > limit:
        sentence = f"the request has {len(payload):,} bytes, and at most {limit:,} are accepted here"
        return JobError(Code.TOO_LARGE, sentence)
    if len(payload) > limits.text_bytes and not is_frame(payload) and sum(map(payload.count, _SIGNS)) > _MAX_SIGNS:
        sentence = "the request has too many parts: what is larger than a text request should be so by its pictures"
        return JobError(Code.TOO_LARGE, sentence)
    return None


def _over(defaults: Mapping[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    """Lay a request's fields over its camera's. What keeps a camera's pictures here is not the client's to undo."""
    if not defaults:
        return sent
    said = {name: value for name, value in sent.items() if value is not None}
    kept = {name for name, strictest in _STRICTEST.items() if defaults.get(name) == strictest}
    if "messages" in said:
        defaults = {name: value for name, value in defaults.items() if name != "prompt"}
    return {**defaults, **{name: value for name, value in said.items() if name not in kept}}


def _from_properties(properties: Mapping[str, str], names: tuple[str, ...] = _PROPERTIES) -> dict[str, Any]:
    """Read the user properties that are ours; what they spell is checked with the rest."""
    found: dict[str, Any] = {}
    for name in names:
        if name not in properties:
            continue
        text = properties[name]
        if name == "max_tokens" and text.isascii() and text.isdigit():
            found[name] = int(text[:20])
        elif name in ("private", "stream") and text in ("true", "false"):
            found[name] = text == "true"
        else:
            found[name] = text
    return found


def _job(body: Body, key: Key, message: Inbound, reply: Reply, **more: Any) -> Job:  # noqa: ANN401
    bounds = [each for each in (body.deadline_s, message.expiry_s) if each is not None]
    return Job(
        client=key.client,
        id=key.id,
        model=body.model,
        sampling=Sampling.model_validate({name: getattr(body, name) for name in Sampling.model_fields}),
        response_format=body.response_format,
        stream=body.stream,
        priority=body.priority,
        deadline_s=float(min(bounds)) if bounds else None,
        placement=body.placement,
        private=body.private,
        reply=reply,
        **more,
    )
