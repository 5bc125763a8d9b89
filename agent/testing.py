"""An engine behind the real protocol that does as it is told: for tests of rare timing, and the bench's fake box."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from agent.contract.errors import JobError
from agent.contract.events import Usage
from agent.contract.jobs import Job, Key
from agent.engines.base import Cost, Done, EngineLost, Event, Health, Started, Text


class Attempt:
    """One run of a job by a `FakeEngine`, under the test's control."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.closed = asyncio.Event()
        self._said = 0
        self._image_tokens = 0
        self._events: asyncio.Queue[Event | BaseException] = asyncio.Queue()

    def start(self, prompt_tokens: int = 3, image_tokens: int = 0) -> None:
        """Say that the prefill begins."""
        self._image_tokens = image_tokens
        self._events.put_nowait(Started(prompt_tokens, image_tokens=image_tokens))

    def say(self, *words: str) -> None:
        """Yield words, one event each."""
        for word in words:
            self._said += 1
            self._events.put_nowait(Text(word, self._said))

    def finish(self, completion_tokens: int = 2, cost: Cost | None = None) -> None:
        """End the job well, having taken the engine so long."""
        self._events.put_nowait(Done("stop", Usage(3, completion_tokens, image_tokens=self._image_tokens), cost))

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
    """An engine that does as the test says, or, with ``words``, answers every job with those at once.

    Args:
        slots: how many jobs it runs at the same time.
        words: the answer to every job; None leaves each to the test.
        model: the name of its model.

    """

    resident_bytes = 0

    def __init__(self, slots: int = 2, words: Sequence[str] | None = None, model: str = "fake") -> None:
        self.slots = slots
        self.health = Health("ready", model, "none", 4096)
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


class FakeCloud(FakeEngine):
    """An endpoint elsewhere that does as the test says.

    Attributes:
        refused: why it takes no job now.
        held_up_s: how long it would hold every request up.

    """

    def __init__(self, slots: int = 2, words: Sequence[str] | None = None, model: str = "fake-cloud") -> None:
        super().__init__(slots, words, model)
        self.health = Health("ready", model, "fake")
        self.refused: JobError | None = None
        self.held_up_s = 0.0

    def refusal(self, job: Job) -> JobError | None:  # noqa: ARG002  it is the same for all
        """Return what the test has set."""
        return self.refused

    def model(self, job: Job) -> str:  # noqa: ARG002  likewise
        """Return the name of the one model."""
        return self.health.model

    def delay_s(self, ahead: int) -> float:  # noqa: ARG002  likewise
        """Return what the test has set."""
        return self.held_up_s
