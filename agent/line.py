"""An engine, the jobs that stand in line for it and those that it runs: what it could do, and what it learns."""

import math
from dataclasses import dataclass, replace

from agent.admission import Queue, Saturation, Signals, Ticket
from agent.contract.errors import Code, JobError
from agent.contract.jobs import Job
from agent.course import Course
from agent.engines.base import Done, Engine, Remote
from agent.forecast import Estimator, Span
from agent.outlook import Outlook
from agent.placement import STRAINS, Place

# Of the time between what a job was told and its deadline, how much others may take from it. Those who start beside a
# job with hours to spare do it no harm; one with three times what it takes alone keeps its turn.
_SPARE = 1 / 8
# After so long without a job, rates may be others: a box cools down by some degrees, and a backup ends. Where nothing
# has changed, it is asked more and more seldom.
_PRACTICE_S, _RARELY_S = 10.0, 600.0
# What an idle box measures of itself twice differs by so much.
_SAME = 0.2
# An endpoint that nobody has asked for so long may be faster than it was; one job at a time finds out.
_STALE_S = 60.0
# For a model that cannot be loaded: somebody has to mend it.
_MENDED_S = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """How busy an engine is, for ``metrics``.

    Attributes:
        saturated: one word for why it is, or None.
        predicted_wait_s: until a job that came now would start; None while nothing can be said.
        busy_s: for how long it has run one job at least, since the start.
        prediction_error: of the last ends that were predicted, the median and the 90th percentile, as shares of what
            the jobs really took; None before the first.

    """

    queued: int
    active: int
    saturated: str | None
    predicted_wait_s: float | None
    busy_s: float
    prediction_error: tuple[float, float] | None


class Line(Outlook):
    """What happens in one line is no other's business.

    Suspects run alone on their engine, and a model that failed ends what waits for it.

    Args:
        engine: what runs the jobs.
        queue: where they wait.
        estimator: tells how long each takes the engine alone.
        saturation: tells from when on jobs should go elsewhere.

    """

    def __init__(self, engine: Engine, queue: Queue, estimator: Estimator, saturation: Saturation) -> None:
        super().__init__(engine, queue, estimator)
        self._saturation = saturation
        self._signals = Signals()
        self._busy_s = 0.0
        self._busy_since = 0.0
        # Whether a job was turned away for its deadline since it last learned, and when that was.
        self._doubted = False
        self._learned_at = -math.inf
        self._pause_s = _PRACTICE_S

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.queue!r} running={len(self.running)} {self.estimator!r}>"

    def load(self, now: float) -> Load:
        """Tell how busy it is."""
        wait_s = self._begins_s(now)
        return Load(
            len(self.queue),
            len(self.running),
            self._saturation.word,
            None if wait_s is None else round(wait_s, 3),
            round(self._busy_s + (now - self._busy_since if self.running else 0.0), 3),
            self.estimator.error,
        )

    def sense(self, signals: Signals, now: float) -> None:
        """Take in how the box is; how the line is is added."""
        self._signals = signals
        self._weigh(now)

    def hold(self, job: Job) -> None:
        """Hold a place for a job on its way to disk, which `place` has found to be there."""
        self.queue.hold(job)
        self._held[id(job)] = job

    def release(self, job: Job) -> None:
        """Give the held place back."""
        self.queue.release(job)
        del self._held[id(job)]

    def place(self, job: Job, now: float, left_s: float | None, *, ahead: bool, bounded: bool) -> Place:
        """Tell what it could do for a job now.

        Args:
            job: it comes now, or is the next to start.
            left_s: seconds to its deadline; None if it has none.
            now: the monotonic clock, in seconds; here as everywhere below.
            ahead: whether what waits is ahead of it.
            bounded: whether a full queue is a refusal.

        """
        span = self.span(job, now, ahead=ahead)
        refusal = self._refusal(job)
        if bounded:
            self._weigh(now)
            # A place is free as soon as one job more has started.
            retry_s = None if span is None else span.begins_s / (len(self.queue) + 1)
            refusal = refusal or self.queue.refusal(job, retry_s)
        strain = self._strain(left_s if span is None else None, ahead=ahead)
        if span is None:
            return Place(self._model(job), refusal, saturated=strain)
        ends_s = span.ends_s * self.estimator.slack
        if left_s is not None and ends_s > left_s:
            if self._half_open(now):
                return Place(self._model(job), refusal, saturated=strain)
            self._doubted = True
        return Place(self._model(job), refusal, ends_s, span.ends_s if self._idle else None, strain)

    def wait(self, ticket: Ticket, now: float) -> tuple[int, Ticket | None, Span | None]:
        """Let a job wait; return how many are ahead of it, what it supersedes, and when it will begin and end."""
        span = self.span(ticket.job, now)
        ahead, superseded = self.queue.push(replace(ticket, until=_promised(ticket, span, now)))
        return ahead, superseded, span

    def take(self, now: float) -> Ticket | None:
        """Take the job to start now, if one may start."""
        if self.engine.health.state != "ready" or len(self.running) >= self.engine.slots:
            return None
        if not all(self._may_start(ticket.job, now) for ticket in self.queue.first(1, now)):
            return None
        suspect_runs = any(course.ticket.deaths for course in self.running.values())
        return self.queue.pop(now, len(self.running), self.engine.slots, suspect_runs=suspect_runs)

    def stranded(self, now: float) -> list[Ticket]:
        """Take out those that wait for an engine that is not there for them, though it may come back."""
        if self.engine.health.state == "ready":
            return []
        waiting = self.queue.first(len(self.queue), now)
        return [ticket for ticket in waiting if self._refusal(ticket.job) and self.queue.remove(ticket.job.key)]

    def begin(self, course: Course, now: float) -> None:
        """Take note that a job runs."""
        if not self.running:
            self._busy_since = now
        span = self.span(course.ticket.job, now, ahead=False)
        course.foreseen_s = None if span is None else span.ends_s
        course.alone = not self.running
        for other in self.running.values():
            other.alone = False
        self.running[course.ticket.job.key] = course

    def end(self, course: Course, now: float) -> None:
        """Take note that a job runs no more, and learn from how it went."""
        ticket = course.ticket
        del self.running[ticket.job.key]
        if not self.running:
            self._busy_s += now - self._busy_since
        done, took_s = course.done, now - course.begun_at
        if done is not None and done.cost is not None:
            self.estimator.ran(ticket.job, done.usage, done.cost)
        elif course.overdue and course.alone:
            self.estimator.broke_off(ticket.job, *course.spent(now))
        elif not course.overdue:
            return
        self._doubted, self._learned_at, self._pause_s = False, now, _PRACTICE_S
        # Of those without a deadline, others that come later take their share: what was foreseen was not meant to hold.
        # One that was cut off had at least so long to go.
        foreseen_s = course.foreseen_s
        if foreseen_s is not None and ticket.deadline is not None and (done is not None or took_s > foreseen_s):
            self.estimator.ended(foreseen_s, took_s)

    def practises_at(self) -> float | None:
        """Tell when it should do a job of ours: it has turned jobs away as too slow, and does and learns nothing."""
        if not (self._doubted and self._idle and self.engine.health.state == "ready"):
            return None
        return None if self._saturation.word in STRAINS else self._learned_at + self._pause_s

    def practised(self, job: Job, done: Done | None, now: float) -> None:
        """Learn from a job of ours, which may have come to nothing.

        As long as it only shows what was known, the next one can wait: what is turned away is too much for this engine.
        """
        self._doubted, self._learned_at, self._pause_s = False, now, min(2 * self._pause_s, _RARELY_S)
        if done is not None and done.cost is not None:
            change = self.estimator.practised(job, done.usage, done.cost)
            if not 1 - _SAME < change < 1 + _SAME:
                self._pause_s = _PRACTICE_S

    def _refusal(self, job: Job) -> JobError | None:  # noqa: ARG002  another line looks at it
        return None if self.failure is None else JobError(Code.MODEL_UNAVAILABLE, self.failure, _MENDED_S)

    def _model(self, job: Job) -> str:  # noqa: ARG002  likewise
        return self.engine.health.model

    def _half_open(self, now: float) -> bool:  # noqa: ARG002  likewise
        """Whether one job is let through against what is foreseen, which may have been long ago."""
        return False

    def _strain(self, unforeseen_s: float | None, *, ahead: bool) -> str | None:
        """Return why a job should go elsewhere.

        Args:
            unforeseen_s: seconds to its deadline, where nobody can tell whether it would be in time.
            ahead: whether what waits is ahead of it. If it is its turn, that so many wait is no reason any more.

        """
        if unforeseen_s is not None and self.engine.health.state != "ready":
            return "model"
        word = self._saturation.word
        return word if ahead or word in STRAINS else None

    def _weigh(self, now: float) -> None:
        state = replace(self._signals, wait_s=self._begins_s(now), full=self.queue.share, healthy=self.failure is None)
        self._saturation.update(state)


class CloudLine(Line):
    """The line for an endpoint elsewhere, where each job has a processor of its own, and the box's state is nothing."""

    def __init__(self, engine: Remote, queue: Queue, estimator: Estimator, saturation: Saturation) -> None:
        super().__init__(engine, queue, estimator, saturation)
        self._remote = engine
        self._begun_at = -math.inf

    @property
    def _shared(self) -> bool:
        return False

    def sense(self, signals: Signals, now: float) -> None:
        """Pass over how the box is."""

    def begin(self, course: Course, now: float) -> None:
        """Take note that a job runs."""
        self._begun_at = now
        super().begin(course, now)

    def practises_at(self) -> float | None:
        """Tell that nothing is sent for practice: it would cost money."""
        return None

    def _refusal(self, job: Job) -> JobError | None:
        return self._remote.refusal(job)

    def _model(self, job: Job) -> str:
        return self._remote.model(job) or ""

    def _half_open(self, now: float) -> bool:
        return self._idle and now - max(self._learned_at, self._begun_at) > _STALE_S

    def _ready_s(self, now: float) -> float | None:  # noqa: ARG002  its readiness is a matter of its refusal
        return self._remote.delay_s(len(self.queue))


def _promised(ticket: Ticket, span: Span | None, now: float) -> float | None:
    """Return by when a job is to end, whatever starts beside it; None for one without a deadline."""
    if ticket.deadline is None or span is None:
        return ticket.deadline
    # Without the slack: whoever slips in would use it up, and so widen it.
    told = now + span.ends_s
    return min(told + max(ticket.deadline - told, 0.0) * _SPARE, ticket.deadline)
