"""One job from its start to its final: run it, stream its words, and say how it ended."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal

import structlog

from agent.admission import Ticket
from agent.contract.errors import Code, JobError
from agent.contract.events import Final, Outcome, Placed, Timing, Usage
from agent.engines.base import Done, Engine, EngineLost, Event, Started, Text
from agent.forecast import Progress
from agent.placement import Decision
from agent.publisher import Stream

_log = structlog.get_logger(__name__)

# A job that was running, alone, when the engine died a second time is taken to be the cause.
_MOST_DEATHS = 2

_OUTCOMES = {Code.CANCELED: Outcome.CANCELED, Code.SUPERSEDED: Outcome.CANCELED, Code.DEADLINE: Outcome.TIMED_OUT}

LATE = JobError(Code.DEADLINE, "the job's deadline passed: allow it more time, or ask a less busy box")


# What may go better elsewhere, or for once not have been the job's fault.
_MOVABLE = frozenset(
    {
        Code.TOO_LARGE,
        Code.MODEL_UNAVAILABLE,
        Code.OUT_OF_MEMORY,
        Code.INTERNAL,
        Code.PRIVACY,
        Code.CLOUD_UNAVAILABLE,
        Code.CLOUD_REJECTED,
    }
)


@dataclass(frozen=True, slots=True)
class Again:
    """The engine died under the job; it is to be run again under this ticket."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine could not do the job, and another might; if there is none, this is how it ended."""

    error: JobError


def ended_unstarted(ticket: Ticket, error: JobError, now: float) -> Final:
    """Build the final of a job that ends while it waits."""
    return Final(
        ticket.job.key,
        _outcome(error, started=_started(ticket)),
        attempt=ticket.attempt,
        placement=Placed(reason=error.word, egress=ticket.egress),
        timing=Timing(queued_s=now - ticket.received_at, total_s=now - ticket.received_at),
        error=error,
        notice=ticket.job.reply.notice,
        camera=ticket.job.camera,
    )


def _started(ticket: Ticket) -> bool:
    return ticket.started or ticket.attempt > 1


def _outcome(error: JobError, *, started: bool) -> Outcome:
    return _OUTCOMES.get(error.code, Outcome.FAILED if started else Outcome.REJECTED)


class Course:
    """One attempt at one job.

    Args:
        ticket: the job and what is known of it.
        decision: where it runs and why.
        engine: what runs it.
        stream: where its words go.
        restarted: stores that a new attempt begins, before it says a word.
        announce: publishes the state ``started`` or ``restarted``.
        clock: the monotonic clock, in seconds.

    Attributes:
        begun_at: when it began, on that clock.
        foreseen_s: how long it was to take from then; None if nobody could tell.
        alone: whether no other job ran beside it.
        done: how it ended by itself, if it did.
        overdue: whether its deadline ended it.

    """

    def __init__(
        self,
        ticket: Ticket,
        decision: Decision,
        engine: Engine,
        stream: Stream,
        *,
        restarted: Callable[[], Awaitable[None]],
        announce: Callable[[Literal["started", "restarted"]], None],
        clock: Callable[[], float],
    ) -> None:
        self.ticket = ticket
        self.begun_at = clock()
        self.foreseen_s: float | None = None
        self.alone = True
        self.done: Done | None = None
        self.overdue = False
        self._decision = decision
        self._engine = engine
        self._stream = stream
        self._restarted = restarted
        self._announce = announce
        self._clock = clock
        self._task: asyncio.Task[object] | None = None
        self._verdict: JobError | None = None
        self._started_at: float | None = None
        self._first_at: float | None = None
        self._usage = Usage()

    def __repr__(self) -> str:
        return f"<Course {self.ticket.job.key} attempt={self.ticket.attempt} seq={self._stream.seq}>"

    @property
    def decision(self) -> Decision:
        """Where it runs, and why."""
        return self._decision

    @property
    def started(self) -> bool:
        """Whether its engine has taken it up."""
        return self._started_at is not None

    @property
    def talked(self) -> bool:
        """Whether its attempt has said a word."""
        return self._first_at is not None

    def progress(self, now: float) -> Progress:
        """Tell how far it is."""
        since_s = 0.0 if self._started_at is None else now - self._started_at
        return Progress(self._usage, since_s, self.talked)

    def spent(self, now: float) -> tuple[Usage, float, float | None]:
        """Tell what it has had so far: tokens, and seconds for its prompt and its answer; None: it has said nothing."""
        started = self.begun_at if self._started_at is None else self._started_at
        if self._first_at is None:
            return self._usage, now - started, None
        return self._usage, self._first_at - started, now - self._first_at

    def abandon(self) -> None:
        """Let nothing more of it go out: the job goes on elsewhere."""
        self._stream.abandon()

    def end(self, verdict: JobError) -> None:
        """End the job from outside: a cancel by its client, or a place that is given up."""
        if self._verdict is None:
            self._verdict = verdict
            if self._task is not None:
                self._task.cancel(str(verdict.code))

    async def run(self) -> Final | Again | Failed:  # noqa: PLR0911  one return for each way to end
        """Run the attempt to its end. A cancellation that is no verdict, such as a drain's, passes through."""
        if self._verdict is not None:
            return self.final(self._verdict)
        self._task = asyncio.current_task()
        try:
            async with asyncio.timeout_at(self.ticket.deadline):
                await self._generate()
        except JobError as error:
            return self._failed(error)
        except TimeoutError:
            self.overdue = True
            return self.final(LATE)
        except EngineLost:
            self._stream.abandon()
            again = self.ticket.again()
            if again.deaths < _MOST_DEATHS:
                return Again(again)
            return self._failed(JobError(Code.INTERNAL, "the engine died twice while it ran this job", retryable=False))
        except asyncio.CancelledError:
            if self._verdict is None or self._task is None or self._task.uncancel():
                self._stream.abandon()
                raise
            return self._failed(self._verdict)
        except Exception:  # noqa: BLE001  the boundary of a job
            # A defect of ours. The job still gets the answer it was promised, and the others go on.
            key = self.ticket.job.key
            _log.exception("job.broke", client=key.client, id=key.id)
            return self.final(JobError(Code.INTERNAL, "a defect of the agent ended the job; its log tells more"))
        return self.final(None)

    def _failed(self, error: JobError) -> Final | Failed:
        return Failed(error) if error.code in _MOVABLE else self.final(error)

    async def _generate(self) -> None:
        if self.ticket.restarts:
            await self._restarted()
        async with aclosing(self._engine.run(self.ticket.job)) as events:
            async for event in events:
                self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case Text():
                if self._first_at is None:
                    self._first_at = self._clock()
                self._usage = replace(self._usage, completion_tokens=event.completion_tokens)
                self._stream.add(event.text)
            case Started():
                self._started_at = self._clock()
                self._usage = Usage(event.prompt_tokens, 0, event.cached_prompt_tokens, event.image_tokens)
                self._announce("started" if self.ticket.attempt == 1 else "restarted")
            case Done():
                self.done, self._usage = event, event.usage

    def final(self, error: JobError | None) -> Final:
        """Build the final of an attempt that is over."""
        self._stream.close()
        if error is None and self.done is None:
            error = JobError(Code.INTERNAL, "the engine stopped without saying why")
        started = self._started_at is not None
        decision, ticket = self._decision, self.ticket
        return Final(
            ticket.job.key,
            Outcome.SUCCEEDED if error is None else _outcome(error, started=started or _started(ticket)),
            text=self._stream.text,
            finish_reason=self.done.finish_reason if self.done and error is None else None,
            attempt=ticket.attempt,
            seq=self._stream.seq,
            usage=self._usage,
            placement=Placed(
                decision.where, decision.reason, decision.model, self._engine.health.provider, egress=ticket.egress
            )
            if started
            else Placed(reason=error.word if error else "refused", egress=ticket.egress),
            timing=self._timing(),
            error=error,
            notice=ticket.job.reply.notice,
            camera=ticket.job.camera,
        )

    def _timing(self) -> Timing:
        now, received = self._clock(), self.ticket.received_at
        started = now if self._started_at is None else self._started_at
        rate = None
        if self.done and self._first_at is not None and now > self._first_at and self.done.usage.completion_tokens > 1:
            rate = (self.done.usage.completion_tokens - 1) / (now - self._first_at)
        first = None if self._first_at is None else self._first_at - received
        return Timing(started - received, first, now - received, rate)
