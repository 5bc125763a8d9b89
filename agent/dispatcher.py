"""Starts jobs as the engine has room for them, and ends them: by answer, cancel, deadline or drain."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
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
from agent.placement import Box, Decision, place
from agent.publisher import Send, Stream, addressed

_log = structlog.get_logger(__name__)

CANCELED = JobError(Code.CANCELED, "the job was canceled by its client")


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the box is, for ``metrics``."""

    queued: int
    active: int
    saturated: bool
    predicted_wait_s: float | None


class Dispatcher:
    """The one place where jobs wait, start and end.

    Args:
        engine: what runs them.
        queue: where they wait.
        finish: stores a final, durably; it is awaited, and nothing interrupts it.
        restarted: stores that a job has come to a new attempt, so that no later one has the same number.
        topics: this node's topics.
        send: publishes best-effort messages.
        flush_s: how long a job's words are gathered, in seconds.
        clock: the monotonic clock, in seconds; the event loop's own.

    """

    def __init__(
        self,
        engine: Engine,
        queue: Queue,
        finish: Callable[[Job, Final], Awaitable[None]],
        restarted: Callable[[Key, int], Awaitable[None]],
        *,
        topics: Topics,
        send: Send,
        flush_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._queue = queue
        self._finish = finish
        self._restarted = restarted
        self._topics = topics
        self._send = send
        self._flush_s = flush_s
        self._clock = clock
        self._pace = Pace()
        self._running: dict[Key, Course] = {}
        self._storing: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._defect: BaseException | None = None
        self._wake = asyncio.Event()
        self._draining = False

    def __repr__(self) -> str:
        return f"<Dispatcher {self._queue!r} running={len(self._running)} draining={self._draining}>"

    @property
    def load(self) -> Load:
        """How busy the box is now."""
        return Load(len(self._queue), len(self._running), self._queue.full, self._wait_s(len(self._queue)))

    def decide(self, job: Job) -> Decision | JobError:
        """Decide where ``job`` would run now, by the engine's health."""
        health = self._engine.health
        return place(job, Box(health.model, health.detail if health.state == "failed" else None))

    def hold(self) -> JobError | None:
        """Hold a place in the queue for a job on its way to disk, or say why there is none."""
        return self._queue.hold(self._pace, self._engine.slots)

    def release(self) -> None:
        """Give the held place back."""
        self._queue.release()

    def admit(self, ticket: Ticket) -> None:
        """Take a job that is safe on disk."""
        ahead = self._queue.push(ticket)
        self._announce(ticket, "accepted", ahead)
        self._wake.set()

    def cancel(self, key: Key) -> None:
        """End a job at its client's wish, waiting or running. Unknown ones are no longer here."""
        ticket = self._queue.remove(key)
        if ticket is not None:
            self._end(ticket, CANCELED)
        elif key in self._running:
            self._running[key].end(CANCELED)

    async def run(self) -> None:
        """Start jobs while there are any, until drained or cancelled; end those whose time is over."""
        async with asyncio.TaskGroup() as side:
            side.create_task(self._follow_health(), name="dispatcher.health")
            while True:
                self._wake.clear()
                if self._defect is not None:
                    raise self._defect
                self._end_what_waits_in_vain()
                self._start_what_may_start()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._queue.next_deadline()):
                        await self._wake.wait()

    async def drain(self, seconds: float) -> int:
        """Start nothing more, let running jobs finish; return how many had not and stay in the spool."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        kept = len(self._running) + len(self._queue)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return kept

    def knows(self, key: Key) -> bool:
        """Whether a job is here: waiting, running, or with its final on the way to disk."""
        return key in self._running or key in self._storing or key in self._queue

    async def _follow_health(self) -> None:
        while True:
            await self._engine.changed()
            self._wake.set()

    def _end_what_waits_in_vain(self) -> None:
        for ticket in self._queue.expired(self._clock()):
            self._end(ticket, LATE)
        health = self._engine.health
        if health.state == "failed":
            error = JobError(Code.MODEL_UNAVAILABLE, health.detail or "the model cannot be loaded", 30.0)
            for ticket in self._queue.clear():
                self._end(ticket, error)

    def _start_what_may_start(self) -> None:
        if self._draining or self._engine.health.state != "ready":
            return
        while ticket := self._queue.pop(
            len(self._running),
            self._engine.slots,
            suspect_runs=any(course.ticket.deaths for course in self._running.values()),
        ):
            decision = self.decide(ticket.job)
            if isinstance(decision, JobError):
                self._end(ticket, decision)
            else:
                self._start(ticket, decision)

    def _start(self, ticket: Ticket, decision: Decision) -> None:
        stream = Stream(ticket.job, ticket.attempt, self._topics, self._send, self._flush_s)
        course = Course(
            ticket,
            decision,
            self._engine,
            stream,
            restarted=lambda: self._restarted(ticket.job.key, ticket.attempt),
            announce=lambda state: self._announce(ticket, state, 0),
            clock=self._clock,
        )
        self._running[ticket.job.key] = course
        self._spawn(self._follow(course), ticket.job.key)

    async def _follow(self, course: Course) -> None:
        job = course.ticket.job
        try:
            ended = await course.run()
        finally:
            # Out before the write: the engine is free, and the next job need not wait for the disk.
            del self._running[job.key]
            self._wake.set()
        if isinstance(ended, Again):
            _log.warning("job.requeued", client=job.client, id=job.id, attempt=ended.ticket.attempt)
            self._queue.push(ended.ticket)
            return
        if course.ran_s is not None:
            self._pace.ran(course.ran_s)
        await self._store(job, ended)

    async def _store(self, job: Job, final: Final) -> None:
        self._storing.add(job.key)
        try:
            # The one thing that a drain may not interrupt: the job is over, only the word of it is missing.
            await asyncio.shield(self._finish(job, final))
        finally:
            self._storing.discard(job.key)

    def _end(self, ticket: Ticket, error: JobError) -> None:
        """End a job that waits no longer and will not run."""
        self._spawn(self._store(ticket.job, ended_unstarted(ticket, error, self._clock())), ticket.job.key)
        self._wake.set()  # it may have been what others waited for

    def _announce(self, ticket: Ticket, state: Literal["accepted", "started", "restarted"], ahead: int) -> None:
        payload = events.state(ticket.job.id, state, ticket.attempt, ahead, self._wait_s(ahead))
        self._send(addressed(self._topics, ticket.job.key, ticket.job.reply, "state", payload, 1))

    def _wait_s(self, ahead: int) -> float | None:
        if self._engine.health.state != "ready":
            return None
        if len(self._running) < self._engine.slots and not ahead:
            return 0.0
        return self._pace.wait_s(ahead + 1, self._engine.slots)

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
