"""The jobs that wait for one engine: how many may, who starts, and whose time is over."""

import heapq
import math
from typing import NamedTuple

from agent.admission.pace import Pace
from agent.admission.ticket import Camera, Ticket, camera_of
from agent.admission.turns import Lane, Turns
from agent.contract.errors import Code, JobError
from agent.contract.jobs import Job, Key, Priority

# Entries of ended jobs that may stay in the deadlines' heap before it is made anew.
_STALE = 64
# Of pictures. What waits is in memory: 64 jobs of 8 MiB, which the other bounds allow, would fill half of a Raspberry
# Pi of 1 GB. This is room for 134 frames of 500 KB.
_MAX_BYTES = 64 << 20

_PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")


class Pushed(NamedTuple):
    """What came of letting a job wait.

    Attributes:
        ahead: how many jobs that wait now are to be started before it.
        superseded: an older frame of the camera, which waits no longer.

    """

    ahead: int
    superseded: Ticket | None


class Queue:
    """Jobs that wait for an engine, no two with one key.

    Args:
        max_jobs: how many may wait; recovered jobs are let in beyond it, since they were promised an answer.

    """

    def __init__(self, max_jobs: int) -> None:
        self.max_jobs = max_jobs
        self._waiting: dict[Key, Ticket] = {}
        self._held = 0
        # Of those that wait, and of those whose place is held while they are written to disk.
        self._bytes = 0
        self._turns = Turns()
        self._suspects: dict[Key, Ticket] = {}
        self._lanes = {priority: Lane(priority, self._turns) for priority in _PRIORITIES}
        # Of each camera the one frame that waits.
        self._frames: dict[Camera, Ticket] = {}
        # (deadline, key) of tickets that wait, and of some that do not any more: only a hint.
        self._deadlines: list[tuple[float, Key]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: Key) -> bool:
        return key in self._waiting

    def __repr__(self) -> str:
        return f"<Queue waiting={len(self)} held={self._held} max_jobs={self.max_jobs} bytes={self._bytes}>"

    @property
    def full(self) -> bool:
        """Whether the next job would be refused, however small."""
        return len(self) + self._held >= self.max_jobs

    def hold(self, job: Job, pace: Pace, slots: int) -> JobError | None:
        """Hold a place for a job that is on its way to disk, or say why there is none.

        A frame is let in where it will replace another: it takes that one's place and frees its memory.
        """
        older = None if job.frame is None else self._frames.get(camera_of(job))
        taken, more = self._bytes - (0 if older is None else _size(older.job)), _size(job)
        if older is None and self.full:
            waiting = f"{len(self) + self._held} jobs wait here already, and at most {self.max_jobs} may"
        elif more and taken + more > _MAX_BYTES:
            waiting = f"{taken:,} bytes of pictures wait here already, and at most {_MAX_BYTES:,} may"
        else:
            self._held += 1
            self._bytes += more
            return None
        first_out = pace.wait_s(1, slots) or 1.0
        return JobError(
            Code.QUEUE_FULL,
            f"{waiting}: try again later, under a new id",
            retry_after_s=float(max(1, math.ceil(first_out))),
        )

    def release(self, job: Job) -> None:
        """Give back a place that `hold` took for ``job``."""
        self._held -= 1
        self._bytes -= _size(job)

    def push(self, ticket: Ticket) -> Pushed:
        """Let a job wait, a frame in the place of the camera's older one; a suspect keeps out of that."""
        job = ticket.job
        if ticket.deadline is not None:
            self._note_deadline(ticket.deadline, job.key)
        self._waiting[job.key] = ticket
        self._bytes += _size(job)
        if ticket.deaths:
            self._suspects[job.key] = ticket
            return Pushed(len(self._suspects) - 1, None)
        self._lanes[job.priority].push(ticket)
        older = None
        if job.frame is not None:
            # Taken out only now that the newer one is in: so the camera keeps its place among the others.
            older = self._frames.get(camera_of(job))
            if older is not None:
                self._take(older)
            self._frames[camera_of(job)] = ticket
        sooner = _PRIORITIES[: _PRIORITIES.index(job.priority)]
        ahead = len(self._suspects) + sum(len(self._lanes[each]) for each in sooner)
        return Pushed(ahead + self._lanes[job.priority].ahead_of(job), older)

    def pop(self, now: float, running: int, slots: int, *, suspect_runs: bool) -> Ticket | None:
        """Take the job to start now, if one may start.

        A job that ran when the engine died runs by itself, so that a second death has one author.
        """
        if suspect_runs or running >= slots or (self._suspects and running):
            return None
        suspect = next(iter(self._suspects.values()), None)
        ticket = suspect or next((each for lane in self._lanes.values() if (each := lane.next(now))), None)
        if ticket is not None:
            self._take(ticket)
            self._turns.took(ticket.job, now)
        return ticket

    def remove(self, key: Key) -> Ticket | None:
        """Take a job out, wherever it waits."""
        ticket = self._waiting.get(key)
        if ticket is not None:
            self._take(ticket)
        return ticket

    def clear(self) -> list[Ticket]:
        """Take every job out, in their order of arrival."""
        tickets = list(self._waiting.values())
        for ticket in tickets:
            self._take(ticket)
        return tickets

    def next_event(self, now: float) -> float | None:
        """Tell when to ask `expired` and `pop` again though nothing came and nothing ended; it may be too early.

        Give it the time that they were given: a frame that came due in between would be missed. One that is due
        already waits for the engine, not for a moment.
        """
        moments = [due for each in self._frames.values() if (due := self._turns.due_at(each.job)) > now]
        return min(moments + [deadline for deadline, _ in self._deadlines[:1]], default=None)

    def expired(self, now: float) -> list[Ticket]:
        """Take out the jobs whose deadline has passed."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, key = heapq.heappop(self._deadlines)
            ticket = self._waiting.get(key)
            if ticket is not None and ticket.deadline == deadline:
                late.append(ticket)
                self._take(ticket)
        return late

    def _take(self, ticket: Ticket) -> None:
        del self._waiting[ticket.job.key]
        self._bytes -= _size(ticket.job)
        if ticket.deaths:
            del self._suspects[ticket.job.key]
            return
        self._lanes[ticket.job.priority].remove(ticket)
        if ticket.job.frame is not None:
            del self._frames[camera_of(ticket.job)]

    def _note_deadline(self, deadline: float, key: Key) -> None:
        # Most jobs end long before their deadline, which may be a year away: their entries must not pile up.
        if len(self._deadlines) > 2 * len(self) + _STALE:
            self._deadlines = [(each.deadline, key) for key, each in self._waiting.items() if each.deadline is not None]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline, key))


def _size(job: Job) -> int:
    return sum(map(len, job.pictures))
