"""The local engine, seen from the daemon: a worker process that runs the model, kept alive.

onnxruntime-genai holds the GIL for as long as a native call lasts, and may crash. So nothing of it is in this
process: jobs go to the worker, and their words come back, as frames (`agent.engines.wire`).
"""

import asyncio
import json
import random
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import structlog

from agent.backoff import Backoff
from agent.contract.errors import Code, JobError
from agent.contract.events import Usage
from agent.contract.jobs import Detail, Job, Message, PicturePart, ResponseFormat, TextPart
from agent.engines import wire
from agent.engines.base import Done, EngineLost, Event, Health, SimilarFrame, Started, Text
from agent.engines.child import Child
from agent.metrics import resident_bytes

_log = structlog.get_logger(__name__)

# -P: a folder named "agent" where the daemon was started must not be taken for ours.
_COMMAND = (sys.executable, "-P", "-m", "agent.engines.worker")
# A single failed load may be a machine that is still starting; a second is a fault that someone has to mend.
_FAILURES = 2
# A worker with jobs says something after every native call. The longest of a text, 16 tokens of prompt of a full-size
# model on a small board, take some 10 s; one that is silent for so much longer hangs.
_SILENCE_S = 120.0
# A prompt with pictures is one call: 2,500 tokens at 3 to 17 a second, by board, of a full-size model. Each may take
# so long, in seconds, before the worker counts as hung; 2 a second is slower than anybody would wait for.
_IMAGE_PROMPT_S = 0.5
# How many crops a picture is cut into at the most. The model's authors recommend 16 for one picture and 4 for several
# frames; 1 is the least there is.
_CROPS: dict[Detail, int] = {"low": 1, "auto": 4, "high": 16}


class LocalEngine:
    """Runs jobs on this box.

    Args:
        name: the model's name, for people.
        folder: where its genai_config.json is.
        slots: how many jobs run at the same time; each has a KV cache of its own.
        threads: of one inference step; None takes one a physical core.
        default_max_tokens: the longest answer of a job that does not say.
        command: what is run as the worker, before its arguments.
        backoff: how long to wait before the worker is started again.
        silence_s: how long a worker that has jobs may say nothing before it counts as hung, in seconds.

    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        slots: int,
        threads: int | None,
        default_max_tokens: int,
        command: Sequence[str] | None = None,
        backoff: Backoff | None = None,
        silence_s: float = _SILENCE_S,
    ) -> None:
        self.slots = slots
        self._command = [*(command or _COMMAND), str(folder)]
        self._command += ["--slots", str(slots), "--max-tokens", str(default_max_tokens)]
        if threads is not None:
            self._command += ["--threads", str(threads)]
        self._backoff = backoff or Backoff(0.5, 30.0, random.random)
        self._silence_s = silence_s
        self._health = Health("loading", name)
        self._changed = asyncio.Event()
        self._child: Child | None = None
        self._numbers = count(1)
        # What a job is told and has not read yet: its answer at most, so no other bound is needed. None: lost.
        self._jobs: dict[int, asyncio.Queue[wire.Message | None]] = {}
        self._said: str | None = None  # the worker's own reason for its end
        # Jobs on which the worker has the last word still to say, and the tokens of each one's longest call beyond a
        # slice; and since when it is silent.
        self._owed: dict[int, int] = {}
        self._heard_at = 0.0

    def __repr__(self) -> str:
        return f"<LocalEngine {self._health.model} {self._health.state}, {len(self._jobs)} jobs, {self._child}>"

    @property
    def health(self) -> Health:
        """How the engine is now."""
        return self._health

    @property
    def resident_bytes(self) -> int:
        """Memory that the worker has in use, 0 while there is none."""
        return resident_bytes(self._child.pid) if self._child else 0

    async def changed(self) -> Health:
        """Wait for the next change of state, and return the health after it."""
        await self._changed.wait()
        return self._health

    async def serve(self) -> None:
        """Keep a worker alive until cancelled; then end it."""
        failures = 0
        try:
            while True:
                reason = await self._live()
                failures = 0 if self._health.state == "ready" else failures + 1
                if failures == 0:
                    self._backoff.reset()
                    reason = f"the inference process died ({reason})"
                self._become(state="failed" if failures >= _FAILURES else "loading", detail=reason)
                delay_s = self._backoff.next()
                _log.warning("engine.worker_lost", reason=reason, failed_loads=failures, retry_s=round(delay_s, 2))
                await asyncio.sleep(delay_s)
        finally:
            self._become(state="loading", detail="the engine was stopped")

    async def run(self, job: Job) -> AsyncGenerator[Event, None]:
        """Run one job; see `agent.engines.base.Engine.run`."""
        number = next(self._numbers)
        submit = _submit(number, job)
        if (child := self._child) is None:
            raise JobError(Code.MODEL_UNAVAILABLE, self._health.detail or "the model is not loaded yet: try again soon")
        told: asyncio.Queue[wire.Message | None] = asyncio.Queue()
        self._jobs[number] = told
        if not self._owed:
            self._heard_at = asyncio.get_running_loop().time()
        self._owed[number] = 0
        ended = False
        try:
            await child.send(submit)
            while not ended:
                event = _event(await told.get())
                ended = isinstance(event, Done)
                yield event
        except (JobError, EngineLost):
            ended = True
            raise
        finally:
            del self._jobs[number]
            if not ended and child is self._child:
                child.tell(wire.Cancel(number))

    async def _live(self) -> str:
        """Run one worker from its start to its end; return why it ended."""
        self._said = None
        try:
            child = await Child.start(self._command, self._hear)
        except OSError as error:
            return f"the inference process cannot be started ({error.strerror})"
        self._child = child
        try:
            while not child.gone.done():
                await asyncio.wait([child.gone], timeout=self._silence_s / 4)
                self._watch(child)
        finally:
            self._child = None
            await child.end()
            self._owed.clear()
            for told in self._jobs.values():
                told.put_nowait(None)
        reason = self._said or child.fault
        if self._health.state != "ready":
            # It has read no job yet, so that there is none to be betrayed by what a library printed.
            _log.warning("engine.load_failed", fate=child.fate, printed=child.last_line)
            reason = (
                reason or f"the inference process ended while it loaded the model ({child.fate}): see the box's log"
            )
        return reason or child.fate

    def _hear(self, message: wire.Message) -> None:
        """Take in what the worker says."""
        self._heard_at = asyncio.get_running_loop().time()
        if isinstance(message, wire.Ready):
            _log.info("engine.model_loaded", load_s=round(message.load_s, 2), provider=message.provider)
            self._become(state="ready", provider=message.provider, context=message.context)
        elif isinstance(message, wire.Failed):
            self._said = message.message
        else:
            if isinstance(message, wire.Started) and message.image:
                self._owed[message.job] = message.prompt
            elif isinstance(message, wire.Progress) and message.job in self._owed:
                self._owed[message.job] = 0
            elif isinstance(message, wire.Done | wire.Similar | wire.Refused | wire.Canceled):
                self._owed.pop(message.job, None)
            told = self._jobs.get(message.job)  # None for a job that was closed meanwhile
            if told and not isinstance(message, wire.Progress):
                told.put_nowait(message)

    def _watch(self, child: Child) -> None:
        """Kill a worker that has jobs and is silent for too long. One that loads takes the time it needs."""
        silent_s = asyncio.get_running_loop().time() - self._heard_at
        allowed_s = self._silence_s + _IMAGE_PROMPT_S * max(self._owed.values(), default=0)
        if self._owed and self._health.state == "ready" and silent_s > allowed_s and not child.gone.done():
            _log.error("engine.worker_hung", pid=child.pid, jobs=len(self._owed))
            child.kill()

    def _become(self, **change: object) -> None:
        health = replace(self._health, **{"detail": None, **change})  # type: ignore[arg-type]
        if health != self._health:
            self._health = health
            self._changed.set()
            self._changed = asyncio.Event()


def _submit(number: int, job: Job) -> wire.Submit:
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


def _event(message: wire.Message | None) -> Event:
    """Return what a message from the worker is to the house.

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
            return Done(message.finish_reason, usage)
        case wire.Similar():
            raise SimilarFrame
        case wire.Refused():
            raise JobError(Code(message.code), message.message)
        case _:
            raise EngineLost("the inference process died under the job")
