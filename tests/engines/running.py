"""Jobs, and what comes of them."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.contract.jobs import Detail, Frame, Job, Message, Part, PicturePart, ResponseFormat, Sampling, TextPart
from agent.engines.base import Done, Engine, Started, Text

PHOTOGRAPHS = sorted((Path(__file__).parent.parent / "pictures").glob("*.jpg"))
PHOTOGRAPH = PHOTOGRAPHS[0].read_bytes()


def job(*turns: str, response_format: ResponseFormat | None = None, **sampling: Any) -> Job:
    """Make a job of a conversation that a user begins."""
    messages = tuple(
        Message(role="assistant" if number % 2 else "user", content=turn) for number, turn in enumerate(turns)
    )
    return Job(client="c", id="j", messages=messages, sampling=Sampling(**sampling), response_format=response_format)


def shown(
    text: str,
    *pictures: bytes,
    detail: Detail = "low",
    camera: str = "porch",
    similar_bits: int | None = None,
    **sampling: Any,
) -> Job:
    """Make a job of pictures and what is asked about them."""
    parts: list[Part] = [PicturePart(type="picture", index=at, detail=detail) for at in range(len(pictures))]
    message = Message(role="user", content=[*parts, TextPart(type="text", text=text)])
    return Job(
        client="c",
        id="j",
        messages=(message,),
        pictures=pictures,
        camera=camera,
        frame=Frame(similar_bits=similar_bits),
        sampling=Sampling(**sampling),
    )


@dataclass
class Answer:
    """What an engine said to a job."""

    started: Started = field(default_factory=lambda: Started(0))
    text: str = ""
    done: Done | None = None
    texts: int = 0

    @property
    def cached(self) -> int:
        return self.started.cached_prompt_tokens


async def answer(engine: Engine, asked: Job, begun: asyncio.Event | None = None) -> Answer:
    """Run a job to its end; set ``begun`` with its first words."""
    said = Answer()
    async for event in engine.run(asked):
        if isinstance(event, Started):
            said.started = event
        elif isinstance(event, Text):
            said.text += event.text
            said.texts += 1
            if begun:
                begun.set()
        else:
            said.done = event
    return said


async def ready(engine: Engine) -> None:
    while engine.health.state != "ready":
        await engine.changed()


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[None]:
    """Serve an engine for the block."""
    task = asyncio.create_task(engine.serve())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def python(*arguments: str, given: str) -> str:
    """Run Python in a process of its own; the library must not be imported into this one."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    said, _ = await process.communicate(given.encode())
    return said.decode()
