"""A cloud engine that is served, and the stand-in that it speaks with over real HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.contract.errors import JobError
from agent.contract.events import Usage
from agent.contract.jobs import Job, Key
from agent.engines.base import Done, Event, Text
from agent.engines.cloud.engine import CloudEngine
from agent.settings import Cloud
from agent.standin import KEY, MODELS, StandIn
from tests.cloud.serving import serving


@dataclass
class Ledger:
    """Books without bounds, that remember.

    Attributes:
        left: the jobs whose requests left, one entry each.
        charged: what came back.
        refuses: what everything is refused with.
        prompt: what a prompt is estimated at, in tokens.
        open: cleared, it holds up whatever is about to leave.

    """

    left: list[Key] = field(default_factory=list)
    charged: list[Usage] = field(default_factory=list)
    refuses: JobError | None = None
    prompt: int = 7
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    def refusal(self, _job: Job) -> JobError | None:
        return self.refuses

    async def leaving(self, job: Job) -> None:
        self.left.append(job.key)
        await self.open.wait()

    def prompt_tokens(self, _job: Job) -> int:
        return self.prompt

    async def returned(self, _job: Job, usage: Usage) -> None:
        self.charged.append(usage)


@dataclass
class Box:
    """An engine that is served, and its books."""

    engine: CloudEngine
    ledger: Ledger

    async def run(self, job: Job) -> list[Event]:
        """Run a job to its end."""
        return [event async for event in self.engine.run(job)]

    async def answer(self, job: Job) -> tuple[str, Done]:
        """Run a job to its good end; return its words, and that."""
        events = await self.run(job)
        done = events[-1]
        assert isinstance(done, Done)
        return "".join(event.text for event in events if isinstance(event, Text)), done

    async def failure(self, job: Job) -> tuple[list[Event], JobError]:
        """Run a job that fails; return what came before, and of what it failed."""
        events: list[Event] = []
        try:
            async for event in self.engine.run(job):
                events.append(event)  # noqa: PERF401  what came before it failed
        except JobError as error:
            return events, error
        raise AssertionError("it did not fail")


@asynccontextmanager
async def connected(
    base_url: str,
    *,
    wait: bool = True,
    key: str | None = KEY,
    keeps: Callable[[Job], bool] = lambda _: False,
    clock: Callable[[], float] = time.monotonic,
    **settings: Any,
) -> AsyncIterator[Box]:
    """Serve an engine for an endpoint until the end of the context, and wait until it is ready."""
    cloud = Cloud.model_validate(
        {"enabled": True, "base_url": base_url, "text_model": MODELS[0], "vision_model": MODELS[1], **settings}
    )
    ledger = Ledger()
    engine = CloudEngine(cloud, key, ledger, keeps, default_max_tokens=5, clock=clock, random=lambda: 0.0)
    serve = asyncio.create_task(engine.serve())
    try:
        while wait and engine.health.state != "ready":
            await engine.changed()
        yield Box(engine, ledger)
    finally:
        serve.cancel()
        await asyncio.wait([serve])


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again every 50 ms for what was put off."""
    monkeypatch.setattr("agent.engines.cloud.exchange._PACE_S", 0.05)


@pytest.fixture
def standin() -> StandIn:
    return StandIn(first_token_s=0.01, tokens_per_s=1000)


@pytest.fixture
async def base_url(standin: StandIn) -> AsyncIterator[str]:
    async with serving(standin) as url:
        yield url


@pytest.fixture
async def box(base_url: str) -> AsyncIterator[Box]:
    async with connected(base_url) as found:
        yield found
