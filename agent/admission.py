"""Who may wait, and who is next: the queue as a pure thing. It has no clock; times are passed in.

Order: jobs that were running when the engine died come first and alone (`Ticket.deaths`), then priority, then
arrival. The bound counts jobs that wait and jobs whose place is held while they are written to disk.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from agent.contract.errors import Code, JobError
from agent.contract.jobs import Job, Key, Priority

# Entries of ended jobs that may stay in the deadlines' heap before it is made anew.
_STALE = 64

_LANES: tuple[Priority, ...] = ("high", "normal", "low")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A job that waits or runs.

    Attributes:
        received_at: when it arrived, on the monotonic clock, in seconds.
        deadline: when its answer is worth nothing any more, on the same clock.
        attempt: which run this is, from 1.
        deaths: how often the engine died while this job ran.

    """

    job: Job
    received_at: float
    deadline: float | None = None
    attempt: int = 1
    deaths: int = 0

    def again(self) -> "Ticket":
        """Return the ticket for the run after one that the engine did not survive."""
        return replace(self, attempt=self.attempt + 1, deaths=self.deaths + 1)


class Pace:
    """How long jobs take, from those that ended: an exponentially weighted mean, in seconds."""

    # A new job counts a fifth: the mean follows a change of work within about ten jobs, yet one odd job moves
    # it little.
    _WEIGHT = 0.2

    def __init__(self) -> None:
        self.mean_s: float | None = None

    def __repr__(self) -> str:
        return f"<Pace mean_s={self.mean_s}>"

    def ran(self, seconds: float) -> None:
        """Take note of a job that ran this long."""
        old = self.mean_s
        self.mean_s = seconds if old is None else old + self._WEIGHT * (seconds - old)

    def wait_s(self, ahead: int, slots: int) -> float | None:
        """Predict the wait behind ``ahead`` jobs for one of ``slots``; None while nothing is measured."""
        return None if self.mean_s is None else round(ahead * self.mean_s / slots, 3)


class Queue:
    """Jobs that wait for the engine.

    Args:
        max_jobs: how many may wait; recovered jobs are let in beyond it, since they were promised an answer.

    """

    def __init__(self, max_jobs: int) -> None:
        self.max_jobs = max_jobs
        self._held = 0
        self._suspects: dict[Key, Ticket] = {}
        self._lanes: dict[Priority, dict[Key, Ticket]] = {lane: {} for lane in _LANES}
        # (deadline, key) of tickets that wait, and of some that do not any more: only a hint.
        self._deadlines: list[tuple[float, Key]] = []

    def __len__(self) -> int:
        return len(self._suspects) + sum(map(len, self._lanes.values()))

    def __contains__(self, key: Key) -> bool:
        return self._find(key) is not None

    def __repr__(self) -> str:
        return f"<Queue waiting={len(self)} held={self._held} max_jobs={self.max_jobs}>"

    def __iter__(self) -> Iterator[Ticket]:
        yield from self._suspects.values()
        for lane in _LANES:
            yield from self._lanes[lane].values()

    @property
    def full(self) -> bool:
        """Whether the next job would be refused."""
        return len(self) + self._held >= self.max_jobs

    def hold(self, pace: Pace, slots: int) -> JobError | None:
        """Hold a place for a job that is on its way to disk, or say why there is none."""
        if self.full:
            first_out = pace.wait_s(1, slots) or 1.0
            waiting = len(self) + self._held
            sentence = (
                f"{waiting} jobs wait here already, and at most {self.max_jobs} may: try again later, under a new id"
            )
            return JobError(Code.QUEUE_FULL, sentence, retry_after_s=float(max(1, math.ceil(first_out))))
        self._held += 1
        return None

    def release(self) -> None:
        """Give back a place that `hold` took."""
        self._held -= 1

    def push(self, ticket: Ticket) -> int:
        """Let a job wait; return how many will be started before it."""
        if ticket.deadline is not None:
            self._note_deadline(ticket.deadline, ticket.job.key)
        if ticket.deaths:
            self._suspects[ticket.job.key] = ticket
            return len(self._suspects) - 1
        self._lanes[ticket.job.priority][ticket.job.key] = ticket
        lanes = _LANES[: _LANES.index(ticket.job.priority) + 1]
        return len(self._suspects) + sum(len(self._lanes[lane]) for lane in lanes) - 1

    def pop(self, running: int, slots: int, *, suspect_runs: bool) -> Ticket | None:
        """Take the job to start now, if one may start.

        A job that ran when the engine died runs by itself, so that a second death has one author.
        """
        if suspect_runs or running >= slots or (self._suspects and running):
            return None
        for lane in (self._suspects, *(self._lanes[each] for each in _LANES)):
            if lane:
                return lane.pop(next(iter(lane)))
        return None

    def remove(self, key: Key) -> Ticket | None:
        """Take a job out, wherever it waits."""
        for lane in (self._suspects, *self._lanes.values()):
            if key in lane:
                return lane.pop(key)
        return None

    def clear(self) -> list[Ticket]:
        """Take every job out, in order."""
        tickets = list(self)
        for lane in (self._suspects, *self._lanes.values()):
            lane.clear()
        return tickets

    def next_deadline(self) -> float | None:
        """Tell when `expired` has to be asked next; it may be early, never late."""
        return self._deadlines[0][0] if self._deadlines else None

    def expired(self, now: float) -> list[Ticket]:
        """Take out the jobs whose deadline has passed."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, key = heapq.heappop(self._deadlines)
            ticket = self._find(key)
            if ticket is not None and ticket.deadline == deadline:
                late.append(ticket)
                self.remove(key)
        return late

    def _find(self, key: Key) -> Ticket | None:
        lanes = (self._suspects, *self._lanes.values())
        return next((lane[key] for lane in lanes if key in lane), None)

    def _note_deadline(self, deadline: float, key: Key) -> None:
        # Most jobs end long before their deadline, which may be a year away: their entries must not pile up.
        if len(self._deadlines) > 2 * len(self) + _STALE:
            waiting = [(each.deadline, each.job.key) for each in self if each.deadline is not None]
            self._deadlines = waiting
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline, key))
