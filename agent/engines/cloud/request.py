"""A job as an endpoint takes it.

Nothing of a job leaves but what is built here: what it asks, and how. Not its client, id, camera or node.
"""

import base64
from collections.abc import Sequence
from typing import Any

from agent.contract.errors import Code, JobError
from agent.contract.events import encode
from agent.contract.jobs import Job, Message, PicturePart, ResponseFormat, TextPart
from agent.engines.cloud.presets import RESPONSE_FORMAT, TOP_K, Preset


def refusal(job: Job, preset: Preset) -> JobError | None:
    """Say which of the job's wishes the endpoint does not know, if there is one.

    It is not left out instead: whoever asks for JSON reads the answer as JSON, and whoever asks for ``top_k: 1`` wants
    the same answer twice. The local engine knows both.
    """
    wishes = {
        TOP_K: job.sampling.top_k is not None,
        RESPONSE_FORMAT: job.response_format is not None and job.response_format.type != "text",
    }
    unknown = next((name for name, wished in wishes.items() if wished and name not in preset.takes), None)
    if unknown is None:
        return None
    sentence = f"the cloud endpoint takes no `{unknown}`: leave it out, or let the job run on the box"
    return JobError(Code.UNSUPPORTED, sentence, retryable=False, reason="rejected")


def body(
    job: Job, model: str, pictures: Sequence[bytes], preset: Preset, *, max_tokens: int, count_usage: bool
) -> bytes:
    """Build the body of a chat completion.

    Args:
        job: what is asked.
        model: the endpoint's name for who shall answer.
        pictures: the job's, as JPEG, and fit to leave the box.
        preset: what the endpoint takes.
        max_tokens: the longest answer of a job that does not say.
        count_usage: whether to ask for the usage at the stream's end.

    """
    sampling = job.sampling
    fields: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": message.role, "content": _content(message, pictures, preset)} for message in job.messages
        ],
        "max_tokens": sampling.max_tokens or max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "stop": sampling.stop or None,
        "response_format": _shape(job.response_format),
        "stream": True,
        "stream_options": {"include_usage": True} if count_usage else None,
    }
    return encode({name: value for name, value in fields.items() if value is not None})


def _content(message: Message, pictures: Sequence[bytes], preset: Preset) -> str | list[dict[str, Any]]:
    """Return a turn's content; one without pictures as a string, since not every text model takes parts."""
    if isinstance(message.content, str) or not any(isinstance(part, PicturePart) for part in message.content):
        return message.text
    parts = message.content
    if preset.pictures_first:
        parts = sorted(parts, key=lambda part: isinstance(part, TextPart))
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "image_url", "image_url": _picture(part, pictures[part.index], preset)}
        for part in parts
    ]


def _picture(part: PicturePart, jpeg: bytes, preset: Preset) -> dict[str, str]:
    url = {"url": "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()}
    return url | {"detail": part.detail} if preset.detail and part.detail != "auto" else url


def _shape(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type == "text":
        return None
    shape = wanted.model_dump(by_alias=True, exclude_none=True)
    if "json_schema" in shape:
        shape["json_schema"].setdefault("name", "answer")  # OpenAI's own cannot do without one
    return shape
