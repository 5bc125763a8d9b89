"""A dispatcher with everything around it faked."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from agent.admission import Queue, Saturation, Ticket
from agent.contract.events import Final
from agent.contract.jobs import Key, Policy
from agent.contract.messages import Outgoing
from agent.contract.topics import Topics
from agent.dispatcher import Dispatcher
from agent.engines.base import Health
from agent.forecast import Estimator
from agent.line import CloudLine, Line, Load
from agent.placement import Station
from agent.testing import FakeCloud, FakeEngine
from tests.jobs.tickets import job


@dataclass
class Box:
    """What a test sees of the dispatcher's surroundings."""

    engines: dict[Station, FakeEngine]
    max_jobs: int = 9
    policy: Policy = "prefer_local"
    finals: dict[str, Final] = field(default_factory=dict)
    stored: list[Ticket] = field(default_factory=list)
    sent: list[Outgoing] = field(default_factory=list)
    requeued: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._finished = asyncio.Condition()
        self.writing = asyncio.Event()
        self._news = asyncio.Event()
        self.disk = asyncio.Event()
        self.disk.set()
        self.lines = {station: line(engine, self.max_jobs) for station, engine in self.engines.items()}
        self.dispatcher = Dispatcher(
            self.lines,
            self.policy,
            self._finish,
            self._restarted,
            topics=Topics("slm", "box1"),
            send=self._send,
            flush_s=3600.0,
            clock=asyncio.get_running_loop().time,
        )

    @property
    def engine(self) -> FakeEngine:
        return self.engines["text"]

    @property
    def vision(self) -> FakeEngine:
        return self.engines["vision"]

    @property
    def cloud(self) -> FakeCloud:
        found = self.engines["cloud"]
        assert isinstance(found, FakeCloud)
        return found

    @property
    def load(self) -> Load:
        return self.dispatcher.loads["text"]

    def _send(self, out: Outgoing) -> bool:
        self.sent.append(out)
        self._news.set()
        return True

    async def _finish(self, ticket: Ticket, final: Final) -> None:
        async with self._finished:
            self.stored.append(ticket)
            self.finals[ticket.job.id] = final
            self._finished.notify_all()

    async def _restarted(self, key: Key, attempt: int) -> None:
        self.requeued.append((key.id, attempt))
        self.writing.set()
        await self.disk.wait()

    def admit(self, name: str, *, deadline_s: float | None = None, **fields: Any) -> Key:
        now = asyncio.get_running_loop().time()
        deadline = None if deadline_s is None else now + deadline_s
        self.dispatcher.admit(Ticket(job(name, deadline_s=deadline_s, **fields), now, deadline))
        return Key("c", name)

    async def final(self, name: str) -> Final:
        async with self._finished:
            await self._finished.wait_for(lambda: name in self.finals)
        return self.finals[name]

    async def until(self, found: Callable[[], bool]) -> None:
        while not found():
            self._news.clear()
            await self._news.wait()

    async def state(self, name: str) -> dict[str, Any]:
        """Wait for a job's first state."""
        await self.until(lambda: self.events(name, "state") != [])
        return self.events(name, "state")[0]

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        topic = f"slm/box1/res/c/{name}/{kind}"
        return [json.loads(out.payload) for out in self.sent if out.topic == topic]


def line(engine: FakeEngine, max_jobs: int = 9) -> Line:
    saturation = Saturation(wait_s=30.0, available_bytes=1 << 28, memory_pressure=20.0, temperature_c=85.0)
    parts = Queue(max_jobs), Estimator(512), saturation
    return CloudLine(engine, *parts) if isinstance(engine, FakeCloud) else Line(engine, *parts)


@asynccontextmanager
async def running(
    slots: int = 2,
    health: Health | None = None,
    vision: FakeEngine | None = None,
    cloud: FakeCloud | None = None,
    max_jobs: int = 9,
    policy: Policy = "prefer_local",
) -> AsyncIterator[Box]:
    """Run a dispatcher with a text engine, and a vision engine and a cloud if they are given."""
    engines: dict[Station, FakeEngine] = {"text": FakeEngine(slots)}
    if health is not None:
        engines["text"].health = health
    if vision is not None:
        engines["vision"] = vision
    if cloud is not None:
        engines["cloud"] = cloud
    box = Box(engines, max_jobs, policy)
    task = asyncio.create_task(box.dispatcher.run())
    yield box
    assert sorted(ticket.job.id for ticket in box.stored) == sorted(box.finals), "a job has one final"
    assert not task.done(), "a defect ended the dispatcher"
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
