"""Starts jobs as the engines have room for them, and ends them: by answer, cancel, deadline or drain."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import structlog

from agent.admission import Signals, Ticket
from agent.chooser import SILENT, Chooser
from agent.contract import events
from agent.contract.errors import Code, JobError
from agent.contract.events import Final
from agent.contract.jobs import Job, Key, Policy
from agent.contract.topics import Topics
from agent.course import LATE, Again, Course, Failed, ended_unstarted
from agent.engines.base import Engine
from agent.forecast import Span
from agent.line import Line, Load
from agent.placement import LOCAL, Decision, Station
from agent.practice import Practice
from agent.publisher import Send, Stream, addressed

_log = structlog.get_logger(__name__)

CANCELED = JobError(Code.CANCELED, "the job was canceled by its client")
SUPERSEDED = JobError(Code.SUPERSEDED, "a newer frame of the camera came while this one waited")


# How often those that wait are looked at again: one that will be late here might still be in time elsewhere. A job
# that such a look is worth to has seconds.
_REVIEW_S = 0.25
# What a job that is let go may still have to write, on a disk that works.
_LET_GO_S = 2.0


class Dispatcher:
    """The one place where jobs wait, start and end.

    Args:
        lines: an engine each, and who waits for it; one local one at least.
        policy: where jobs run that do not say, and the loosest that one may ask for.
        finish: stores a final, durably; it is awaited, and nothing interrupts it.
        restarted: stores that a job has come to a new attempt, so that no later one has the same number.
        topics: this node's topics.
        send: publishes best-effort messages.
        flush_s: how long a job's words are gathered, in seconds.
        clock: the monotonic clock, in seconds; the event loop's own.

    """

    def __init__(
        self,
        lines: Mapping[Station, Line],
        policy: Policy,
        finish: Callable[[Ticket, Final], Awaitable[None]],
        restarted: Callable[[Key, int], Awaitable[None]],
        *,
        topics: Topics,
        send: Send,
        flush_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._lines = dict(lines)
        self._chooser = Chooser(lines, policy, clock)
        self._practice = Practice(lines, self._spawn, clock)
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
        self._reviewed_at = -math.inf

    def __repr__(self) -> str:
        return f"<Dispatcher {self._lines!r} draining={self._draining}>"

    @property
    def loads(self) -> dict[Station, Load]:
        """How busy each engine is now."""
        now = self._clock()
        return {station: line.load(now) for station, line in self._lines.items()}

    def sense(self, signals: Signals) -> None:
        """Take in how the box is."""
        for line in self._lines.values():
            line.sense(signals, self._clock())

    def left(self, key: Key) -> None:
        """Take note that bytes of a job leave the box now."""
        for line in self._lines.values():
            if key in line.running:
                course = line.running[key]
                course.ticket = replace(course.ticket, egress=True)

    def decide(self, job: Job, left_s: float | None) -> Decision | JobError:
        """Decide where ``job``, which has come now, would run, ``left_s`` before its deadline."""
        return self._chooser.choose(job, left_s, bounded=True)

    def hold(self, job: Job, decision: Decision) -> None:
        """Hold a place in line for a job on its way to disk; there is one, or it would not have been decided so."""
        self._lines[decision.station].hold(job)

    def release(self, job: Job, decision: Decision) -> None:
        """Give the held place back."""
        self._lines[decision.station].release(job)

    def admit(self, ticket: Ticket, decision: Decision | None = None) -> None:
        """Take a job that is safe on disk, or whose loss is accepted.

        Args:
            ticket: the job.
            decision: where its place was held; None for one that was promised an answer by an earlier run, which is
                let in beyond the bounds, or ended at once: things have changed.

        """
        decided = decision or self._chooser.place(ticket)
        if isinstance(decided, JobError):
            self._end(ticket, decided)
        else:
            self._wait(ticket, self._lines[decided.station], announce=True)

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
        self._practice.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        kept = sum(len(line.running) + len(line.queue) for line in self._lines.values())
        left = list(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_LET_GO_S)
        return kept

    def knows(self, key: Key) -> bool:
        """Whether a job is here: waiting, running, or with its final on the way to disk."""
        return key in self._storing or any(key in line.running or key in line.queue for line in self._lines.values())

    def _settle(self, ticket: Ticket, why: str) -> None:
        """Let a job wait elsewhere, or end it if there is no such place."""
        decision = self._chooser.place(ticket, bounded=True)
        if isinstance(decision, JobError):
            self._end(ticket, decision)
        else:
            self._move(ticket, decision, why)

    def _wait(self, ticket: Ticket, line: Line, *, announce: bool = False) -> None:
        ahead, superseded, span = line.wait(ticket, self._clock())
        if announce:
            self._announce(ticket, "accepted", ahead, span)
        older = [other.queue.overtaken(ticket) for other in self._lines.values() if other is not line]
        for each in (superseded, *older):
            if each is not None:
                self._end(each, SUPERSEDED)
        self._wake.set()

    async def _turn(self) -> None:
        self._wake.clear()
        if self._defect is not None:
            raise self._defect
        now = self._clock()
        for line in self._lines.values():
            self._end_what_waits_in_vain(line, now)
            self._start_what_may_start(line, now)
        moments = [line.queue.next_event(now) for line in self._lines.values()]
        moments += [self._review(now), *(self._practice.start(now) if not self._draining else ())]
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min((each for each in moments if each is not None), default=None)):
                await self._wake.wait()

    async def _follow_health(self, engine: Engine) -> None:
        while True:
            await engine.changed()
            self._wake.set()

    def _end_what_waits_in_vain(self, line: Line, now: float) -> None:
        for ticket in line.queue.expired(now):
            self._end(ticket, LATE)
        for ticket in line.stranded(now):
            self._settle(ticket, "model")

    def _review(self, now: float) -> float | None:
        """Move what would be late here and in time in the cloud; return when to look again."""
        waits = [station for station in LOCAL if station in self._lines and len(self._lines[station].queue)]
        if "cloud" not in self._lines or not waits:
            return None
        if now >= self._reviewed_at + _REVIEW_S:
            self._reviewed_at = now
            for station in waits:  # and not back: it would go to and fro
                for ticket in self._lines[station].late(now):
                    decision = self._chooser.instead(ticket)
                    if isinstance(decision, Decision):
                        self._lines[station].queue.remove(ticket.job.key)
                        self._move(ticket, decision, "deadline")
        return self._reviewed_at + _REVIEW_S

    def _move(self, ticket: Ticket, decision: Decision, why: str) -> None:
        _log.info("job.moved", client=ticket.job.client, id=ticket.job.id, to=decision.where, why=why)
        self._wait(ticket, self._lines[decision.station])

    def _start_what_may_start(self, line: Line, now: float) -> None:
        while not self._draining and (ticket := line.take(now)):
            decision = self._chooser.place(ticket, head_of=line)
            if isinstance(decision, JobError):
                self._end(ticket, decision)
            elif self._lines[decision.station] is line:
                self._start(ticket, decision, line)
            else:
                self._move(ticket, decision, decision.reason)

    def _start(self, ticket: Ticket, decision: Decision, line: Line) -> None:
        self._practice.make_way(decision.station)
        course = Course(
            ticket,
            decision,
            line.engine,
            Stream(ticket.job, ticket.attempt, self._topics, self._send, self._flush_s),
            restarted=lambda: self._restarted(ticket.job.key, ticket.attempt),
            announce=lambda state: self._announce(ticket, state, 0, None),
            clock=self._clock,
        )
        line.begin(course, self._clock())
        patience_s = self._chooser.patience_s(ticket, decision)
        if patience_s is not None:
            asyncio.get_running_loop().call_later(patience_s, self._lose_patience, course, line)
        _log.debug("job.started", client=ticket.job.client, id=ticket.job.id, attempt=ticket.attempt)
        self._spawn(self._follow(course, line), _name(ticket))

    def _lose_patience(self, course: Course, line: Line) -> None:
        """Give a silent cloud up if this box can still do the job; if it cannot, the cloud is all that is left."""
        ticket = course.ticket
        if line.running.get(ticket.job.key) is not course or course.talked:
            return
        if isinstance(self._chooser.without_cloud(ticket), Decision):
            course.end(SILENT)

    async def _follow(self, course: Course, line: Line) -> None:
        job = course.ticket.job
        try:
            ended = await course.run()
        finally:
            # Out before the write: the engine is free, and the next job need not wait for the disk.
            line.end(course, self._clock())
            self._wake.set()
        match ended:
            case Again(ticket):
                _log.warning("job.requeued", client=job.client, id=job.id, attempt=ticket.attempt)
                self._wait(ticket, line)
            case Failed(error):
                await self._fall_back(course, error)
            case Final():
                await self._store(course.ticket, ended)

    async def _fall_back(self, course: Course, error: JobError) -> None:
        """Let a job that failed run elsewhere, or end it. What it has said is void: it begins a new attempt then."""
        where = course.decision.where
        ticket = course.ticket.moved(where, error, started=course.started, talked=course.talked)
        decision = self._chooser.place(ticket, bounded=True)
        if isinstance(decision, JobError):
            await self._store(course.ticket, course.final(decision))
            return
        course.abandon()
        self._move(ticket, decision, error.word)

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
        self._spawn(self._store(ticket, ended_unstarted(ticket, error, self._clock())), _name(ticket))
        self._wake.set()  # it may have been what others waited for

    def _announce(
        self, ticket: Ticket, state: Literal["accepted", "started", "restarted"], ahead: int, span: Span | None
    ) -> None:
        job = ticket.job
        payload = events.state(
            job.id,
            state,
            ticket.attempt,
            ahead,
            None if span is None else span.begins_s,
            None if span is None else span.ends_s,
            camera=job.camera,
        )
        self._send(addressed(self._topics, job.key, job.reply, "state", payload, 1))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            # The job has no final and is in no queue: only a new start, from the spool, can still answer it.
            self._defect = task.exception()


def _name(ticket: Ticket) -> str:
    return f"job {ticket.job.client}/{ticket.job.id}"
