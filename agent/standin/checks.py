"""What the stand-in refuses by itself, as a strict NIM does."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from agent.standin.faults import Fault, Refusal, problem

KEY = "nvapi-stand-in"
MODELS = ("microsoft/phi-3.5-mini-instruct", "microsoft/phi-3.5-vision-instruct")

# Others are refused by some models: these are what all of them take.
_FIELDS = frozenset(
    {"messages", "model", "max_tokens", "temperature", "top_p", "stop", "seed", "stream", "stream_options"}
)
_ROLES = frozenset({"system", "user", "assistant"})
# Of base64, a picture; NIM refers larger ones to its assets API.
_PICTURE_CHARACTERS = 180_000
_TAG = re.compile(r'<img src="data:image/\w+;base64,([^"]*)"\s*/>')
_URI = re.compile(r"data:image/\w+;base64,(.*)\Z", re.DOTALL)


def authorised(headers: Mapping[str, str], key: str) -> bool:
    """Tell whether a request has the key, as NIM wants it or as Azure does."""
    return key in (headers.get("authorization", "").removeprefix("Bearer "), headers.get("api-key"))


def refusal(body: object, models: Collection[str], also: Collection[str]) -> Refusal | None:
    """Return what is wrong with a request's body, if anything is.

    Args:
        body: as it was read; None where it is no JSON.
        models: those there are.
        also: further fields that are taken.

    """
    return next(_complaints(body, models, also), None)


def texts(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a request's messages, without their pictures."""
    for message in body["messages"]:
        yield from (text for text, _ in _parts(message["content"]) if text is not None)


def _complaints(body: object, models: Collection[str], also: Collection[str]) -> Iterator[Refusal]:
    """Yield what is wrong; after the first, the rest may make no sense."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        yield _unprocessable("messages: Field required")
        return
    if unknown := body.keys() - _FIELDS - {*also}:
        yield _unprocessable(f"{', '.join(sorted(unknown))}: Extra inputs are not permitted")
    if body.get("model") not in models:
        yield Fault.NO_MODEL.value
    if body.get("stream_options") and not body.get("stream"):
        yield _unprocessable("stream_options: only with stream")
    most = body.get("max_tokens", 1)
    if not isinstance(most, int) or most < 1:
        yield _unprocessable("max_tokens: Input should be an integer greater than 0")
    for message in body["messages"]:
        yield from _message_complaints(message)


def _message_complaints(message: object) -> Iterator[Refusal]:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        yield _unprocessable("messages: Input should be a role and its content")
        return
    try:
        parts = list(_parts(message.get("content")))
    except (TypeError, KeyError, ValueError):
        yield _unprocessable("content: Input should be a string, or parts of text and image_url")
        return
    said = False
    for text, picture in parts:
        if picture is not None and len(picture) >= _PICTURE_CHARACTERS:
            yield Fault.IMAGE_FORMAT.value
        if picture is not None and said:
            yield _unprocessable("content: a picture stands before the text")
        said = said or bool(text and text.strip())


def _parts(content: object) -> Iterator[tuple[str | None, str | None]]:
    """Yield each text and each picture's base64, in their order, whichever of NVIDIA's two ways they are written."""
    if isinstance(content, str):
        for number, piece in enumerate(_TAG.split(content)):
            yield (None, piece) if number % 2 else (piece, None)
        return
    if not isinstance(content, list):
        raise TypeError
    for part in content:
        if part["type"] == "text":
            yield str(part["text"]), None
        elif part["type"] == "image_url" and (found := _URI.match(part["image_url"]["url"])):
            yield None, found[1]
        else:
            raise ValueError


def _unprocessable(detail: str) -> Refusal:
    return Refusal(422, problem(422, "Unprocessable Entity", detail))
