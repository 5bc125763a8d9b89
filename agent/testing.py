"""Stand-ins behind the real protocols, for tests that need rare timing to be exact. Nothing else uses them."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from agent.bus import Delivery
from agent.contract.events import Usage
from agent.contract.jobs import Job, Key
from agent.contract.messages import Outgoing
from agent.engines.base import Done, EngineLost, Event, Health, Started, Text


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now


@dataclass
class FakeBus:
    """A bus without a broker: it keeps what is published, and acknowledges at once while it is connected."""

    receive: Callable[[Delivery], None]
    on_connected: Callable[[], None] = lambda: None
    connected: bool = True
    congested: bool = False
    max_packet: int | None = None
    sent: list[Outgoing] = field(default_factory=list)
    delivered: list[Outgoing] = field(default_factory=list)
    closed: bool = False
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, out: Outgoing) -> bool:
        """Keep a best-effort message, if connected."""
        if self.connected and not self.congested:
            self.sent.append(out)
            return True
        return False

    async def deliver(self, out: Outgoing) -> None:
        """Keep a message, once connected."""
        while not self.connected:
            self._open.clear()
            await self._open.wait()
        self.delivered.append(out)

    def reconnect(self) -> None:
        """Let waiting deliveries go out."""
        self.connected = True
        self._open.set()
        self.on_connected()

    async def run(self) -> None:
        """Be connected for ever."""
        self.on_connected()
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Take note."""
        self.closed = True


class Attempt:
    """One run of a job by a `FakeEngine`, under the test's control."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.closed = asyncio.Event()
        self._events: asyncio.Queue[Event | BaseException] = asyncio.Queue()

    def start(self, prompt_tokens: int = 3) -> None:
        """Say that the prefill begins."""
        self._events.put_nowait(Started(prompt_tokens))

    def say(self, *words: str) -> None:
        """Yield words, one event each."""
        for word in words:
            self._events.put_nowait(Text(word))

    def finish(self, completion_tokens: int = 2) -> None:
        """End the job well."""
        self._events.put_nowait(Done("stop", Usage(3, completion_tokens)))

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` out of the run."""
        self._events.put_nowait(error)

    def lose(self) -> None:
        """Die under the job."""
        self.fail(EngineLost())

    async def next(self) -> Event:
        """Return what the test says next."""
        event = await self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event


class FakeEngine:
    """An engine that does as the test says, or, with ``words``, answers every job with those at once."""

    def __init__(self, slots: int = 2, words: Sequence[str] | None = None) -> None:
        self.slots = slots
        self.health = Health("ready", "fake", "none", 4096)
        self.attempts: dict[Key, list[Attempt]] = {}
        self._words = words
        self._arrived = asyncio.Condition()
        self._changed = asyncio.Event()

    def become(self, health: Health) -> None:
        """Change the health."""
        self.health = health
        self._changed.set()

    async def changed(self) -> Health:
        """Wait until `become` is called."""
        await self._changed.wait()
        self._changed.clear()
        return self.health

    async def serve(self) -> None:
        """Do nothing, for ever."""
        await asyncio.Event().wait()

    async def attempt(self, key: Key, number: int = 1) -> Attempt:
        """Wait until a job is run for the ``number``-th time, and return that run."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.attempts.get(key, ())) >= number)
        return self.attempts[key][number - 1]

    async def run(self, job: Job) -> AsyncGenerator[Event, None]:
        """Yield what the test says, until it is done."""
        attempt = Attempt(job)
        async with self._arrived:
            self.attempts.setdefault(job.key, []).append(attempt)
            self._arrived.notify_all()
        if self._words is not None:
            attempt.start()
            attempt.say(*self._words)
            attempt.finish(len(self._words))
        try:
            while True:
                event = await attempt.next()
                yield event
                if isinstance(event, Done):
                    return
        finally:
            attempt.closed.set()
