"""Starts jobs as the engines have room for them, and ends them: by answer, cancel, deadline or drain."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from agent.admission import Pace, Queue, Ticket
from agent.contract import events
from agent.contract.errors import Code, JobError
from agent.contract.events import Final
from agent.contract.jobs import Job, Key
from agent.contract.topics import Topics
from agent.course import LATE, Again, Course, ended_unstarted
from agent.engines.base import Engine
from agent.placement import Box, Decision, Model, Station, place
from agent.publisher import Send, Stream, addressed

_log = structlog.get_logger(__name__)

CANCELED = JobError(Code.CANCELED, "the job was canceled by its client")
SUPERSEDED = JobError(Code.SUPERSEDED, "a newer frame of the camera came while this one waited")


@dataclass(frozen=True, slots=True)
class Load:
    """How busy an engine is, for ``metrics``."""

    queued: int
    active: int
    saturated: bool
    predicted_wait_s: float | None


class _Line:
    """An engine, the jobs that stand in line for it, and those that it runs.

    What happens in one line is no other's business: suspects run alone on their engine, and a model that failed ends
    what waits for it.
    """

    def __init__(self, engine: Engine, max_jobs: int) -> None:
        self.engine = engine
        self.queue = Queue(max_jobs)
        self.pace = Pace()
        self.running: dict[Key, Course] = {}

    def __repr__(self) -> str:
        return f"<_Line {self.queue!r} running={len(self.running)}>"

    @property
    def model(self) -> Model:
        """The engine's model, as placement sees it."""
        health = self.engine.health
        failed = health.state == "failed"
        return Model(health.model, (health.detail or "the model cannot be loaded") if failed else None)

    @property
    def load(self) -> Load:
        """How busy it is now."""
        return Load(len(self.queue), len(self.running), self.queue.full, self.wait_s(len(self.queue)))

    def wait_s(self, ahead: int) -> float | None:
        """Predict the wait behind ``ahead`` jobs, in seconds; None while nothing can be said."""
        if self.engine.health.state != "ready":
            return None
        if len(self.running) < self.engine.slots and not ahead:
            return 0.0
        return self.pace.wait_s(ahead + 1, self.engine.slots)

    def take(self, now: float) -> Ticket | None:
        """Take the job to start now, if one may start."""
        if self.engine.health.state != "ready":
            return None
        suspect_runs = any(course.ticket.deaths for course in self.running.values())
        return self.queue.pop(now, len(self.running), self.engine.slots, suspect_runs=suspect_runs)


class Dispatcher:
    """The one place where jobs wait, start and end.

    Args:
        engines: what runs them; one at least.
        max_jobs: how many may wait for each engine.
        finish: stores a final, durably; it is awaited, and nothing interrupts it.
        restarted: stores that a job has come to a new attempt, so that no later one has the same number.
        topics: this node's topics.
        send: publishes best-effort messages.
        flush_s: how long a job's words are gathered, in seconds.
        clock: the monotonic clock, in seconds; the event loop's own.

    """

    def __init__(
        self,
        engines: Mapping[Station, Engine],
        max_jobs: int,
        finish: Callable[[Ticket, Final], Awaitable[None]],
        restarted: Callable[[Key, int], Awaitable[None]],
        *,
        topics: Topics,
        send: Send,
        flush_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._lines = {station: _Line(engine, max_jobs) for station, engine in engines.items()}
        self._finish = finish
        self._restarted = restarted
        self._topics = topics
        self._send = send
        self._flush_s = flush_s
        self._clock = clock
        self._storing: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._defect: BaseException | None = None
        self._wake = asyncio.Event()
        self._draining = False

    def __repr__(self) -> str:
        return f"<Dispatcher {self._lines!r} draining={self._draining}>"

    @property
    def loads(self) -> dict[Station, Load]:
        """How busy each engine is now."""
        return {station: line.load for station, line in self._lines.items()}

    def decide(self, job: Job) -> Decision | JobError:
        """Decide where ``job`` would run now, by the engines' health."""
        return place(job, Box(**{station: line.model for station, line in self._lines.items()}))

    def hold(self, job: Job, decision: Decision) -> JobError | None:
        """Hold a place in line for a job on its way to disk, or say why there is none."""
        line = self._lines[decision.engine]
        return line.queue.hold(job, line.pace, line.engine.slots)

    def release(self, job: Job, decision: Decision) -> None:
        """Give the held place back."""
        self._lines[decision.engine].queue.release(job)

    def admit(self, ticket: Ticket) -> None:
        """Take a job that is safe on disk, or whose loss is accepted. It may be ended at once: things change."""
        decision = self.decide(ticket.job)
        if isinstance(decision, JobError):
            self._end(ticket, decision)
            return
        line = self._lines[decision.engine]
        ahead, superseded = line.queue.push(ticket)
        self._announce(ticket, "accepted", ahead, line)
        if superseded is not None:
            self._end(superseded, SUPERSEDED)
        self._wake.set()

    def cancel(self, key: Key) -> None:
        """End a job at its client's wish, waiting or running. Unknown ones are no longer here."""
        for line in self._lines.values():
            ticket = line.queue.remove(key)
            if ticket is not None:
                self._end(ticket, CANCELED)
            elif key in line.running:
                line.running[key].end(CANCELED)

    async def run(self) -> None:
        """Start jobs while there are any, until drained or cancelled; end those whose time is over."""
        try:
            async with asyncio.TaskGroup() as side:
                for station, line in self._lines.items():
                    side.create_task(self._follow_health(line.engine), name=f"dispatcher.health.{station}")
                while True:
                    await self._turn()
        finally:
            # Let go before their engine is, whose end would be taken for its death under them.
            for task in self._tasks:
                task.cancel()

    async def drain(self, seconds: float) -> int:
        """Start nothing more, let running jobs finish; return how many had not and stay in the spool."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        kept = sum(len(line.running) + len(line.queue) for line in self._lines.values())
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return kept

    def knows(self, key: Key) -> bool:
        """Whether a job is here: waiting, running, or with its final on the way to disk."""
        return key in self._storing or any(key in line.running or key in line.queue for line in self._lines.values())

    async def _turn(self) -> None:
        self._wake.clear()
        if self._defect is not None:
            raise self._defect
        now = self._clock()
        for line in self._lines.values():
            self._end_what_waits_in_vain(line, now)
            self._start_what_may_start(line, now)
        moments = [line.queue.next_event(now) for line in self._lines.values()]
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min((each for each in moments if each is not None), default=None)):
                await self._wake.wait()

    async def _follow_health(self, engine: Engine) -> None:
        while True:
            await engine.changed()
            self._wake.set()

    def _end_what_waits_in_vain(self, line: _Line, now: float) -> None:
        for ticket in line.queue.expired(now):
            self._end(ticket, LATE)
        failure = line.model.unavailable
        if failure is not None:
            for ticket in line.queue.clear():
                self._end(ticket, JobError(Code.MODEL_UNAVAILABLE, failure, 30.0))

    def _start_what_may_start(self, line: _Line, now: float) -> None:
        while not self._draining and (ticket := line.take(now)):
            decision = self.decide(ticket.job)
            if isinstance(decision, JobError):
                self._end(ticket, decision)
            else:
                self._start(ticket, decision, line)

    def _start(self, ticket: Ticket, decision: Decision, line: _Line) -> None:
        stream = Stream(ticket.job, ticket.attempt, self._topics, self._send, self._flush_s)
        course = Course(
            ticket,
            decision,
            line.engine,
            stream,
            restarted=lambda: self._restarted(ticket.job.key, ticket.attempt),
            announce=lambda state: self._announce(ticket, state, 0, line),
            clock=self._clock,
        )
        line.running[ticket.job.key] = course
        _log.debug("job.started", client=ticket.job.client, id=ticket.job.id, attempt=ticket.attempt)
        self._spawn(self._follow(course, line), ticket.job.key)

    async def _follow(self, course: Course, line: _Line) -> None:
        job = course.ticket.job
        try:
            ended = await course.run()
        finally:
            # Out before the write: the engine is free, and the next job need not wait for the disk.
            del line.running[job.key]
            self._wake.set()
        if isinstance(ended, Again):
            _log.warning("job.requeued", client=job.client, id=job.id, attempt=ended.ticket.attempt)
            line.queue.push(ended.ticket)
            return
        if course.ran_s is not None:
            line.pace.ran(course.ran_s)
        await self._store(course.ticket, ended)

    async def _store(self, ticket: Ticket, final: Final) -> None:
        self._storing.add(ticket.job.key)
        try:
            # The one thing that a drain may not interrupt: the job is over, only the word of it is missing.
            await asyncio.shield(self._finish(ticket, final))
        finally:
            self._storing.discard(ticket.job.key)

    def _end(self, ticket: Ticket, error: JobError) -> None:
        """End a job that waits no longer and will not run."""
        self._storing.add(ticket.job.key)  # at once: between the queue and the task it would be nowhere
        self._spawn(self._store(ticket, ended_unstarted(ticket, error, self._clock())), ticket.job.key)
        self._wake.set()  # it may have been what others waited for

    def _announce(
        self, ticket: Ticket, state: Literal["accepted", "started", "restarted"], ahead: int, line: _Line
    ) -> None:
        job = ticket.job
        payload = events.state(job.id, state, ticket.attempt, ahead, line.wait_s(ahead), camera=job.camera)
        self._send(addressed(self._topics, job.key, job.reply, "state", payload, 1))

    def _spawn(self, work: Coroutine[Any, Any, None], key: Key) -> None:
        task = asyncio.create_task(work, name=f"job {key.client}/{key.id}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # The job has no final and is in no queue: only a new start, from the spool, can still answer it.
            self._defect = task.exception()
            self._wake.set()
