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
from agent.engines.base import Done, Engine, EngineLost, Started, Text
from agent.placement import Decision
from agent.publisher import Stream

_log = structlog.get_logger(__name__)

# A job that was running, alone, when the engine died a second time is taken to be the cause.
_MOST_DEATHS = 2

_OUTCOMES = {Code.CANCELED: Outcome.CANCELED, Code.SUPERSEDED: Outcome.CANCELED, Code.DEADLINE: Outcome.TIMED_OUT}

LATE = JobError(Code.DEADLINE, "the job's deadline passed: allow it more time, or ask a less busy box")


@dataclass(frozen=True, slots=True)
class Again:
    """The engine died under the job; it is to be run again under this ticket."""

    ticket: Ticket


def ended_unstarted(ticket: Ticket, error: JobError, now: float) -> Final:
    """Build the final of a job that ends while it waits."""
    return Final(
        ticket.job.key,
        _outcome(error, started=ticket.attempt > 1),
        attempt=ticket.attempt,
        placement=Placed(reason=str(error.code)),
        timing=Timing(queued_s=now - ticket.received_at, total_s=now - ticket.received_at),
        error=error,
        notice=ticket.job.reply.notice,
        camera=ticket.job.camera,
    )


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
        self._done: Done | None = None
        self._usage = Usage()

    def __repr__(self) -> str:
        return f"<Course {self.ticket.job.key} attempt={self.ticket.attempt} seq={self._stream.seq}>"

    @property
    def ran_s(self) -> float | None:
        """Seconds since the engine took the job up; None before that."""
        return None if self._started_at is None else self._clock() - self._started_at

    def end(self, verdict: JobError) -> None:
        """End the job from outside: a cancel by its client."""
        if self._verdict is None:
            self._verdict = verdict
            if self._task is not None:
                self._task.cancel()

    async def run(self) -> Final | Again:  # noqa: PLR0911  one return for each way to end
        """Run the attempt to its end. A cancellation that is no verdict, such as a drain's, passes through."""
        if self._verdict is not None:
            return self._final(self._verdict)
        self._task = asyncio.current_task()
        try:
            async with asyncio.timeout_at(self.ticket.deadline):
                await self._generate()
        except JobError as error:
            return self._final(error)
        except TimeoutError:
            return self._final(LATE)
        except EngineLost:
            self._stream.abandon()
            again = self.ticket.again()
            if again.deaths < _MOST_DEATHS:
                return Again(again)
            return self._final(JobError(Code.INTERNAL, "the engine died twice while it ran this job", retryable=False))
        except asyncio.CancelledError:
            if self._verdict is None or self._task is None or self._task.uncancel():
                self._stream.abandon()
                raise
            return self._final(self._verdict)
        except Exception:  # noqa: BLE001  the boundary of a job
            # A defect of ours. The job still gets the answer it was promised, and the others go on.
            key = self.ticket.job.key
            _log.exception("job.broke", client=key.client, id=key.id)
            return self._final(JobError(Code.INTERNAL, "a defect of the agent ended the job; its log tells more"))
        return self._final(None)

    async def _generate(self) -> None:
        if self.ticket.deaths:
            await self._restarted()
        async with aclosing(self._engine.run(self.ticket.job)) as events:
            async for event in events:
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
                        self._done, self._usage = event, event.usage

    def _final(self, error: JobError | None) -> Final:
        self._stream.close()
        if error is None and self._done is None:
            error = JobError(Code.INTERNAL, "the engine stopped without saying why")
        started = self._started_at is not None
        health = self._engine.health
        return Final(
            self.ticket.job.key,
            Outcome.SUCCEEDED if error is None else _outcome(error, started=started or self.ticket.attempt > 1),
            text=self._stream.text,
            finish_reason=self._done.finish_reason if self._done and error is None else None,
            attempt=self.ticket.attempt,
            seq=self._stream.seq,
            usage=self._usage,
            placement=Placed("local", self._decision.reason, health.model, health.provider)
            if started
            else Placed(reason=str(error.code) if error else "refused"),
            timing=self._timing(),
            error=error,
            notice=self.ticket.job.reply.notice,
            camera=self.ticket.job.camera,
        )

    def _timing(self) -> Timing:
        now, received = self._clock(), self.ticket.received_at
        started = now if self._started_at is None else self._started_at
        rate = None
        if (
            self._done
            and self._first_at is not None
            and now > self._first_at
            and self._done.usage.completion_tokens > 1
        ):
            rate = (self._done.usage.completion_tokens - 1) / (now - self._first_at)
        first = None if self._first_at is None else self._first_at - received
        return Timing(started - received, first, now - received, rate)
