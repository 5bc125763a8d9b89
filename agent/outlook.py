"""When the jobs of one engine will begin and end: what it runs and what waits for it, put to the forecast."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from agent.admission import Queue, Ticket
from agent.contract.jobs import Job, Key
from agent.engines.base import Engine
from agent.forecast import Estimator, Running, Span, Waiting, Work, foresee, may_start

if TYPE_CHECKING:
    from agent.course import Course

# Of those that wait, how many are looked at one by one; what is behind them counts as so many more like them. A job
# with a deadline seldom stands as far back, and looking at 32 takes a fifth of a millisecond.
_LOOK = 32


class _Ahead(NamedTuple):
    """What starts before a job: one by one, and how much longer it takes with those that are not looked at."""

    line: list[Waiting]
    more_s: float


class Outlook:
    """What is to come in one line.

    Args:
        engine: what runs the jobs.
        queue: where they wait.
        estimator: tells how long each takes the engine alone.

    """

    def __init__(self, engine: Engine, queue: Queue, estimator: Estimator) -> None:
        self.engine = engine
        self.queue = queue
        self.estimator = estimator
        self.running: dict[Key, Course] = {}
        # Jobs on their way to disk, which will wait here.
        self._held: dict[int, Job] = {}
        self._unready_since: float | None = None

    @property
    def failure(self) -> str | None:
        """Why the engine can run nothing, for as long as nobody mends it."""
        health = self.engine.health
        return (health.detail or "the model cannot be loaded") if health.state == "failed" else None

    def span(self, job: Job, now: float, *, ahead: bool = True) -> Span | None:
        """Foretell when a job would begin and end, ``ahead`` of it what waits, or nothing; None if it cannot be."""
        own, ready_s = self.estimator.work(job), self._ready_s(now)
        if own is None or ready_s is None:
            return None
        before = self._before(job, now) if ahead else _Ahead([], 0.0)
        return None if before is None else self._foresee(before, own, now, ready_s)

    def late(self, now: float) -> list[Ticket]:
        """Return those of the next to start that will not have ended by their deadline, and leave them here."""
        waiting = self.queue.first(_LOOK, now)
        ready_s = self._ready_s(now)
        if ready_s is None or all(ticket.deadline is None for ticket in waiting):
            return []
        ahead = self._ahead(waiting, len(waiting), now)
        if ahead is None:
            return []
        spans = foresee(self._occupied(now), ahead.line, self.engine.slots, shared=self._shared)
        slack = self.estimator.slack
        return [
            ticket
            for ticket, span in zip(waiting, spans, strict=False)  # what is on its way to disk comes behind them
            if ticket.deadline is not None and now + (ready_s + span.ends_s) * slack > ticket.deadline
        ]

    @property
    def _idle(self) -> bool:
        return not (self.running or len(self.queue) or self._held)

    @property
    def _shared(self) -> bool:
        """Whether the jobs that run share one processor."""
        return True

    def _ready_s(self, now: float) -> float | None:
        """Return how long it is until the engine takes jobs; None if nobody knows."""
        if self.engine.health.state == "ready":
            self._unready_since = None
            return 0.0
        if self._unready_since is None:
            self._unready_since = now
        load_s, since_s = self.estimator.load_s, now - self._unready_since
        if load_s is None or self.failure is not None:
            return None
        # What is overdue by as much again, as of any wait of which nothing is known but its length so far.
        return load_s - since_s if since_s < load_s else since_s

    def _begins_s(self, now: float) -> float | None:
        """Return when a job that came now and stood last would start; None if nobody knows."""
        ready_s = self._ready_s(now)
        if ready_s is None:
            return None
        if len(self.running) < self.engine.slots and not len(self.queue):
            return ready_s
        if not self.estimator.known:
            return None
        ahead = self._ahead(self.queue.first(_LOOK, now), len(self.queue), now)
        return None if ahead is None else self._foresee(ahead, Work(0.0, 0.0), now, ready_s).begins_s

    def _foresee(self, ahead: "_Ahead", own: Work, now: float, ready_s: float) -> Span:
        line = [*ahead.line, Waiting(own)]
        begins_s, ends_s = foresee(self._occupied(now), line, self.engine.slots, shared=self._shared)[-1]
        return Span(begins_s + ahead.more_s + ready_s, ends_s + ahead.more_s + ready_s)

    def _before(self, job: Job, now: float) -> "_Ahead | None":
        """Return what would start before a job that came now; None if it is not known how long that takes."""
        tickets, count = self.queue.before(job, _LOOK, now)
        return self._ahead(tickets, count, now)

    def _ahead(self, tickets: Sequence[Ticket], count: int, now: float) -> "_Ahead | None":
        """Return what these take, with all that is on its way to disk, and the rest of ``count``."""
        jobs = [(ticket.job, ticket.until) for ticket in tickets]
        jobs += [(job, None if job.deadline_s is None else now + job.deadline_s) for job in self._held.values()]
        works = [self.estimator.work(job) for job, _ in jobs[:_LOOK]]
        known = [work for work in works if work is not None]
        if len(known) < len(works):
            return None
        line = [Waiting(work, _until(until, now)) for work, (_, until) in zip(known, jobs[:_LOOK], strict=True)]
        rest = count + len(self._held) - len(line)
        if not known or rest <= 0:
            return _Ahead(line, 0.0)
        mean_s = sum(work.total_s for work in known) / len(known)
        return _Ahead(line, rest * mean_s / (1 if self._shared else self.engine.slots))

    def _occupied(self, now: float) -> list[Running]:
        """Return what the jobs that run still take, and by when they are promised to end."""
        return [
            Running(self.estimator.left(each.ticket.job, each.progress(now)), _until(each.ticket.until, now))
            for each in self.running.values()
        ]

    def _may_start(self, job: Job, now: float) -> bool:
        if not self._shared or not self.running:
            return True
        own = self.estimator.work(job)
        return own is None or may_start(own, self._occupied(now))


def _until(moment: float | None, now: float) -> float | None:
    return None if moment is None else moment - now
