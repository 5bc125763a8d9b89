"""An engine, the jobs that stand in line for it, those that it runs, and when each of them will have ended."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from agent.admission import Queue, Saturation, Signals, Ticket
from agent.contract.errors import Code, JobError
from agent.contract.jobs import Job, Key
from agent.course import Course
from agent.engines.base import Done, Engine, Remote
from agent.forecast import Estimator, Running, Span, Waiting, Work, foresee, may_start
from agent.placement import Place

# Of those that wait, how many are looked at one by one; what is behind them counts as so many more like them. A job
# with a deadline seldom stands as far back, and looking at 32 takes a fifth of a millisecond.
_LOOK = 32
# Of the time between what a job was told and its deadline, how much others may take from it. Those who start beside a
# job with hours to spare do it no harm; one with three times what it takes alone keeps its turn.
_SPARE = 1 / 8
# After so long without a job, rates may be others: a box cools down by some degrees, and a backup ends.
_PRACTICE_S = 10.0
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


class _Promise(NamedTuple):
    """What a job was told when it came: when it was, and how long it was to take, in seconds."""

    at: float
    ends_s: float


class Line:
    """What happens in one line is no other's business.

    Suspects run alone on their engine, and a model that failed ends what waits for it.

    Args:
        engine: what runs the jobs.
        queue: where they wait.
        estimator: tells how long each takes the engine alone.
        saturation: tells from when on jobs should go elsewhere.

    """

    # Whether the jobs that run share one processor.
    _shared = True

    def __init__(self, engine: Engine, queue: Queue, estimator: Estimator, saturation: Saturation) -> None:
        self.engine = engine
        self.queue = queue
        self.estimator = estimator
        self.running: dict[Key, Course] = {}
        self._saturation = saturation
        self._signals = Signals()
        self._promises: dict[Key, _Promise] = {}
        self._busy_s = 0.0
        self._busy_since = 0.0
        self._unready_since: float | None = None
        # Whether a job was turned away for its deadline since it last learned, and when that was.
        self._doubted = False
        self._learned_at = -math.inf

    def __repr__(self) -> str:
        return f"<Line {self.queue!r} running={len(self.running)} {self.estimator!r}>"

    @property
    def _idle(self) -> bool:
        return not self.running and not len(self.queue)

    @property
    def failure(self) -> str | None:
        """Why the engine can run nothing, for as long as nobody mends it."""
        health = self.engine.health
        return (health.detail or "the model cannot be loaded") if health.state == "failed" else None

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
        self._weigh(self._begins_s(now))

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
        if ahead:
            self._weigh(None if span is None else span.begins_s)
        refusal = self._refusal(job)
        if refusal is None and bounded:
            # A place is free as soon as one job more has started.
            refusal = self.queue.refusal(job, None if span is None else span.begins_s / (len(self.queue) + 1))
        if span is None:
            return Place(self._model(job), refusal, saturated=self._saturation.word)
        ends_s = span.ends_s * self.estimator.slack
        self._doubted |= left_s is not None and ends_s > left_s
        likely_s = span.ends_s if self._idle else None
        return Place(self._model(job), refusal, ends_s, likely_s, self._saturation.word)

    def practises_at(self) -> float | None:
        """Tell when it should do a job of ours: it has turned jobs away as too slow, and does and learns nothing."""
        if not (self._shared and self._doubted and self._idle and self.engine.health.state == "ready"):
            return None
        return self._learned_at + _PRACTICE_S

    def practised(self, job: Job, done: Done | None, now: float) -> None:
        """Learn from a job of ours, which may have come to nothing."""
        self._doubted, self._learned_at = False, now
        if done is not None and done.cost is not None:
            work = self.estimator.work(job)
            self.estimator.ran(job, done.usage, done.cost)
            if work is not None:
                self.estimator.ended(work.total_s, done.cost.prefill_s + done.cost.decode_s)

    def span(self, job: Job, now: float, *, ahead: bool = True) -> Span | None:
        """Foretell when a job would begin and end, ``ahead`` of it what waits, or nothing; None if it cannot be."""
        own, ready_s = self.estimator.work(job), self._ready_s(now)
        if own is None or ready_s is None:
            return None
        before = self._before(job, now) if ahead else []
        if before is None:
            return None
        line = [*before, Waiting(own)]
        begins_s, ends_s = foresee(self._occupied(now), line, self.engine.slots, shared=self._shared)[-1]
        return Span(begins_s + ready_s, ends_s + ready_s)

    def wait(self, ticket: Ticket, now: float) -> tuple[int, Ticket | None, Span | None]:
        """Let a job wait; return how many are ahead of it, what it supersedes, and when it will begin and end."""
        span = self.span(ticket.job, now)
        ahead, superseded = self.queue.push(ticket)
        if span is not None:
            self._promises[ticket.job.key] = _Promise(now, span.ends_s)
        if superseded is not None:
            self._promises.pop(superseded.job.key, None)
        return ahead, superseded, span

    def take(self, now: float) -> Ticket | None:
        """Take the job to start now, if one may start."""
        if self.engine.health.state != "ready" or len(self.running) >= self.engine.slots:
            return None
        if not all(self._may_start(ticket.job, now) for ticket in self.queue.first(1, now)):
            return None
        suspect_runs = any(course.ticket.deaths for course in self.running.values())
        return self.queue.pop(now, len(self.running), self.engine.slots, suspect_runs=suspect_runs)

    def late(self, now: float) -> list[Ticket]:
        """Return those of the next to start that will not have ended by their deadline, and leave them here."""
        waiting = self.queue.first(_LOOK, now)
        if all(ticket.deadline is None for ticket in waiting):
            return []
        line, ready_s = self._waiting(waiting, len(waiting), now), self._ready_s(now)
        if line is None or ready_s is None:
            return []
        spans = foresee(self._occupied(now), line, self.engine.slots, shared=self._shared)
        slack = self.estimator.slack
        return [
            ticket
            for ticket, span in zip(waiting, spans, strict=True)
            if ticket.deadline is not None and now + ready_s + span.ends_s * slack > ticket.deadline
        ]

    def begin(self, course: Course, now: float) -> None:
        """Take note that a job runs."""
        if not self.running:
            self._busy_since = now
        self.running[course.ticket.job.key] = course
        course.until = self._promised(course.ticket)

    def end(self, course: Course, now: float) -> None:
        """Take note that a job runs no more, and learn from how it went."""
        del self.running[course.ticket.job.key]
        if not self.running:
            self._busy_s += now - self._busy_since
        promise = self._promises.pop(course.ticket.job.key, None)
        done = course.done
        if done is not None and done.cost is not None:
            self._doubted, self._learned_at = False, now
            self.estimator.ran(course.ticket.job, done.usage, done.cost)
            # Others share with whoever comes later, by design: what they were told is no measure of what is foreseen.
            if promise is not None and course.ticket.deadline is not None:
                self.estimator.ended(promise.ends_s, now - promise.at)

    def forget(self, key: Key) -> Ticket | None:
        """Take a job out that waits here, if it does."""
        self._promises.pop(key, None)
        return self.queue.remove(key)

    def clear(self) -> list[Ticket]:
        """Take out all that wait."""
        tickets = self.queue.clear()
        for ticket in tickets:
            self._promises.pop(ticket.job.key, None)
        return tickets

    def _refusal(self, job: Job) -> JobError | None:  # noqa: ARG002  another line looks at it
        return None if self.failure is None else JobError(Code.MODEL_UNAVAILABLE, self.failure, _MENDED_S)

    def _model(self, job: Job) -> str:  # noqa: ARG002  likewise
        return self.engine.health.model

    def _ready_s(self, now: float) -> float | None:
        """Return how long it is until the engine takes jobs; None if nobody knows."""
        if self.engine.health.state == "ready":
            self._unready_since = None
            return 0.0
        if self._unready_since is None:
            self._unready_since = now
        load_s = self.estimator.load_s
        if load_s is None or self.failure is not None:
            return None
        return max(load_s - (now - self._unready_since), 0.0)

    def _weigh(self, wait_s: float | None) -> None:
        state = replace(self._signals, wait_s=wait_s, full=self.queue.share, healthy=self.failure is None)
        self._saturation.update(state)

    def _begins_s(self, now: float) -> float | None:
        """Return when a job that came now would start; None if nobody knows."""
        ready_s = self._ready_s(now)
        if ready_s is None:
            return None
        if len(self.running) < self.engine.slots and not len(self.queue):
            return ready_s
        before = self._waiting(self.queue.first(_LOOK, now), len(self.queue), now)
        if before is None:
            return None
        spans = foresee(self._occupied(now), [*before, Waiting(Work(0.0, 0.0))], self.engine.slots, shared=self._shared)
        return spans[-1].begins_s + ready_s

    def _before(self, job: Job, now: float) -> list[Waiting] | None:
        """Return what would start before a job that came now; None if it is not known how long that takes."""
        tickets, count = self.queue.before(job, _LOOK, now)
        return self._waiting(tickets, count, now)

    def _waiting(self, tickets: Sequence[Ticket], count: int, now: float) -> list[Waiting] | None:
        """Return what these take, and the rest of ``count`` in one lump, as so many more like them."""
        works = _known(self.estimator.work(ticket.job) for ticket in tickets)
        if works is None:
            return None
        untils = [_until(self._promised(ticket), now) for ticket in tickets]
        found = [Waiting(work, until) for work, until in zip(works, untils, strict=True)]
        if works and count > len(works):
            more = (count - len(works)) / len(works)
            prefill_s, decode_s = (more * sum(each) for each in zip(*works, strict=True))
            found.append(Waiting(Work(prefill_s, decode_s)))
        return found

    def _occupied(self, now: float) -> list[Running]:
        """Return what the jobs that run still take, and by when they are promised to end."""
        return [
            Running(self.estimator.left(each.ticket.job, each.progress(now)), _until(each.until, now))
            for each in self.running.values()
        ]

    def _may_start(self, job: Job, now: float) -> bool:
        if not self._shared or not self.running:
            return True
        own = self.estimator.work(job)
        return own is None or may_start(own, self._occupied(now))

    def _promised(self, ticket: Ticket) -> float | None:
        """Return by when a job is to end, whatever starts beside it; None for one without a deadline."""
        promise = self._promises.get(ticket.job.key)
        if promise is None or ticket.deadline is None:
            return ticket.deadline
        # Without the slack: whoever slips in would use it up, and so widen it.
        told = promise.at + promise.ends_s
        return min(told + max(ticket.deadline - told, 0.0) * _SPARE, ticket.deadline)


class CloudLine(Line):
    """The line for an endpoint elsewhere, where each job has a processor of its own, and the box's state is nothing."""

    _shared = False

    def __init__(self, engine: Remote, queue: Queue, estimator: Estimator, saturation: Saturation) -> None:
        super().__init__(engine, queue, estimator, saturation)
        self._remote = engine

    def sense(self, signals: Signals, now: float) -> None:
        """Pass over how the box is."""

    def _refusal(self, job: Job) -> JobError | None:
        return self._remote.refusal(job)

    def _model(self, job: Job) -> str:
        return self._remote.model(job) or ""

    def _ready_s(self, now: float) -> float | None:  # noqa: ARG002  its readiness is a matter of its refusal
        return self._remote.delay_s


def _known(works: Iterable[Work | None]) -> list[Work] | None:
    """Return all of them, or None if one is not known."""
    found = list(works)
    known = [each for each in found if each is not None]
    return known if len(known) == len(found) else None


def _until(moment: float | None, now: float) -> float | None:
    return None if moment is None else moment - now
