"""A job as a worker takes it, and what a worker says as the house hears it."""

import json

from agent.contract.errors import Code, JobError
from agent.contract.events import Usage
from agent.contract.jobs import Detail, Job, Message, PicturePart, ResponseFormat, TextPart
from agent.engines import wire
from agent.engines.base import Cost, Done, EngineLost, Event, SimilarFrame, Started, Text

# How many crops a picture is cut into at the most. The model's authors recommend 16 for one picture and 4 for several
# frames; 1 is the least there is.
_CROPS: dict[Detail, int] = {"low": 1, "auto": 4, "high": 16}


def submit(number: int, job: Job) -> wire.Submit:
    """Return the job as a worker takes it.

    Raises:
        JobError: this engine cannot run it.

    """
    if any("\0" in message.text for message in job.messages):
        raise JobError(Code.BAD_REQUEST, "the messages have a NUL character, at which the tokenizer would stop")
    conversation = [{"role": message.role, "content": _content(message)} for message in job.messages]
    shown = [part for message in job.messages for part in _pictures(message)]
    files = [job.pictures[part.index] for part in shown]
    similar_bits = job.frame.similar_bits if job.frame else None
    sampling = job.sampling
    return wire.Submit(
        number,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        stop=sampling.stop,
        schema=_schema(job.response_format),
        pictures=tuple((len(file), _CROPS[part.detail]) for file, part in zip(files, shown, strict=True)),
        camera=f"{job.client}/{job.camera}" if similar_bits is not None else None,
        similar_bits=similar_bits or 0,
        payload=b"".join([json.dumps(conversation, ensure_ascii=False).encode(), *files]),
    )


def _content(message: Message) -> str | list[str | None]:
    """Return a turn's content as the worker takes it, with None for each picture."""
    if isinstance(message.content, str) or not _pictures(message):
        return message.text
    return [part.text if isinstance(part, TextPart) else None for part in message.content]


def _pictures(message: Message) -> list[PicturePart]:
    if isinstance(message.content, str):
        return []
    return [part for part in message.content if isinstance(part, PicturePart)]


def _schema(wanted: ResponseFormat | None) -> str | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return '{"type":"object"}'
    if wanted.json_schema is None:
        raise JobError(Code.BAD_REQUEST, "response_format json_schema needs its json_schema")
    schema = json.dumps(wanted.json_schema.schema_)
    if len(schema) > wire.MAX_SCHEMA:
        raise JobError(
            Code.TOO_LARGE, f"the JSON schema has {len(schema):,} bytes, and it may have {wire.MAX_SCHEMA:,}"
        )
    return schema


def event(message: wire.Message | None) -> Event:
    """Return what a message from the worker is to the house; None stands for the worker's death.

    Raises:
        SimilarFrame, JobError: the job's end without success.
        EngineLost: the worker is gone.

    """
    match message:
        case wire.Text():
            return Text(message.payload.decode(), message.completion)
        case wire.Started():
            return Started(message.prompt, message.cached, message.image)
        case wire.Done():
            usage = Usage(message.prompt, message.completion, message.cached, message.image)
            return Done(message.finish_reason, usage, Cost(message.prefill_s, message.decode_s))
        case wire.Similar():
            raise SimilarFrame
        case wire.Refused():
            raise JobError(Code(message.code), message.message)
        case _:
            raise EngineLost("the inference process died under the job")
