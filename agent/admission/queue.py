"""The jobs that wait for one engine: how many may, who starts, and whose time is over."""

import math
from collections import Counter
from typing import NamedTuple

from agent.admission.order import Order
from agent.admission.ticket import Camera, Ticket, camera_of
from agent.admission.turns import Lane, Starts, Turns, Waiting
from agent.contract.errors import Code, JobError
from agent.contract.jobs import Job, Key, Priority

# Of pictures. What waits is in memory: 64 jobs of 8 MiB, which the other bounds allow, would fill half of a Raspberry
# Pi of 1 GB. This is room for 134 frames of 500 KB.
_MAX_BYTES = 64 << 20
# After so long a job counts as one of the next higher priority. It is three times what a full queue takes with
# SmolLM2-135M (64 answers of 57 tokens, at the 98 tokens/s that were seen, are 37 s): so an ordinary backlog keeps its
# priorities, and only what others overtake again and again moves up.
_PATIENCE_S = 120.0
# The event loop does nothing else meanwhile: 100,000 jobs that came at once and move up at once took 2 s.
_PROMOTED_AT_ONCE = 100

_PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")


class Pushed(NamedTuple):
    """What came of letting a job wait.

    Attributes:
        ahead: how many jobs that wait now are to be started before it; at most, where others' turns come between.
        superseded: an older frame of the camera, which waits no longer.

    """

    ahead: int
    superseded: Ticket | None


class Queue:
    """Jobs that wait for an engine, no two with one key.

    Args:
        max_jobs: how many may wait; recovered jobs are let in beyond it, since they were promised an answer.
        max_jobs_per_client: how many of them may be one client's; by default three quarters.
        cameras: when each had its turn, shared by queues whose jobs are the same cameras'.

    """

    def __init__(
        self, max_jobs: int, max_jobs_per_client: int | None = None, cameras: "dict[Camera, Starts] | None" = None
    ) -> None:
        self.max_jobs = max_jobs
        self._max_jobs_per_client = max_jobs_per_client or _most_of(max_jobs)
        self._waiting: dict[Key, Waiting] = {}
        self._held = 0
        # Of those that wait, and of those whose place is held while they are written to disk: these three.
        self._bytes = 0
        self._pictures = 0
        self._by_client: Counter[str] = Counter()
        self._turns = Turns(cameras)
        self._suspects: dict[Key, Waiting] = {}
        self._lanes = {priority: Lane(priority, self._turns) for priority in _PRIORITIES}
        # Of each camera the one frame that waits.
        self._frames: dict[Camera, Waiting] = {}
        self._deadlines: Order[Waiting] = Order()
        # When each job moves up, of those that can, and when that was last looked at.
        self._promotions: Order[Waiting] = Order()
        self._promoted_at = -math.inf

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

    @property
    def share(self) -> float:
        """The share of the places that is taken, from 0 to 1."""
        return min(1.0, (len(self) + self._held) / self.max_jobs)

    def refusal(self, job: Job, retry_after_s: float | None = None) -> JobError | None:
        """Say why there is no place for ``job``, if there is none.

        A frame is let in where it will replace another: it takes that one's place and frees its memory.

        Args:
            job: what asks for a place.
            retry_after_s: when one is foreseen to be free, in seconds from now.

        """
        older = self._older(job)
        why = self._bytes_full(job, older) or (self._places_full(job) if older is None else None)
        if why is None:
            return None
        return JobError(
            Code.QUEUE_FULL,
            f"{why} may: try again later, under a new id",
            retry_after_s=float(max(1, math.ceil(retry_after_s or 1.0))),
        )

    def hold(self, job: Job, retry_after_s: float | None = None) -> JobError | None:
        """Hold a place for a job that is on its way to disk, or say why there is none; see `refusal`."""
        refused = self.refusal(job, retry_after_s)
        if refused is None:
            self._held += 1
            self._count(job, 1)
        return refused

    def release(self, job: Job) -> None:
        """Give back a place that `hold` took for ``job``."""
        self._held -= 1
        self._count(job, -1)

    def push(self, ticket: Ticket) -> Pushed:
        """Let a job wait, a frame in the place of the camera's older one; a suspect keeps out of that.

        A frame that comes back from elsewhere may be the older one itself: it is superseded then, and does not wait.
        """
        job = ticket.job
        newer = None if ticket.deaths else self._older(job)
        if newer is not None and newer.ticket.received_at > ticket.received_at:
            return Pushed(0, ticket)
        each = Waiting(ticket, ticket.received_at, job.priority)
        self._waiting[job.key] = each
        self._count(job, 1)
        if ticket.deadline is not None:
            self._deadlines.put(each, ticket.deadline)
        if ticket.deaths:
            self._suspects[job.key] = each
            return Pushed(len(self._suspects) - 1, None)
        older = self._older(job)
        if older is not None:
            # Else a camera that sends without end would never have waited for long.
            each.since = older.since
        self._enter(each)
        if older is not None:
            # Taken out only now that the newer one is in: so the camera keeps its place among the others.
            self._take(older)
        if job.frame is not None:
            self._frames[camera_of(job)] = each
        return Pushed(self._ahead_of(each), None if older is None else older.ticket)

    def overtaken(self, ticket: Ticket) -> Ticket | None:
        """Take out a frame that waits here and is older than this one of its camera, which waits elsewhere."""
        older = self._older(ticket.job)
        if older is None or older.ticket.received_at >= ticket.received_at:
            return None
        self._take(older)
        return older.ticket

    def first(self, limit: int, now: float) -> list[Ticket]:
        """Tell which ``limit`` jobs start next, in order, leaving them here.

        They are exactly those that `pop` takes if it is asked so often at ``now``; what comes, goes or moves up later
        may change that. (Behind a suspect it is nearly so: its own start counts as a turn.) The cost grows with
        ``limit``, and not with the queue.
        """
        return [each.ticket for each in self._first(limit, now)]

    def before(self, job: Job, limit: int, now: float) -> tuple[list[Ticket], int]:
        """Tell which jobs would start before one that came now: the first ``limit`` of them, and how many in all.

        If it would be among the next ``limit``, both are exact, as in `first`; else the number is as in `Pushed`. A
        frame is told the place of the one that it would replace.
        """
        older = self._older(job)
        guest = older or Waiting(Ticket(job, now), now, job.priority)
        if older is None:
            self._lanes[guest.priority].push(guest)
        order, count = self._first(limit + 1, now), self._ahead_of(guest)
        if older is None:
            self._lanes[guest.priority].remove(guest)
        if guest in order:
            count = order.index(guest)
        return [each.ticket for each in order[: min(count, limit)]], count

    def pop(self, now: float, running: int, slots: int, *, suspect_runs: bool) -> Ticket | None:
        """Take the job to start now, if one may start.

        A job that ran when the engine died runs by itself, so that a second death has one author.
        """
        if suspect_runs or running >= slots or (self._suspects and running):
            return None
        for each in self._first(1, now):
            self._take(each)
            self._turns.took(each.job, each.priority, now)
            for lane in self._lanes.values():
                lane.turned(camera_of(each.job))
            return each.ticket
        return None

    def remove(self, key: Key) -> Ticket | None:
        """Take a job out, wherever it waits."""
        each = self._waiting.get(key)
        if each is None:
            return None
        self._take(each)
        return each.ticket

    def clear(self) -> list[Ticket]:
        """Take every job out, in their order of arrival."""
        waiting = list(self._waiting.values())
        for each in waiting:
            self._take(each)
        return [each.ticket for each in waiting]

    def next_event(self, now: float) -> float | None:
        """Tell when to ask `expired` and `pop` again though nothing came and nothing ended.

        Give it the time that they were given: a frame that came due in between would be missed. One that is due
        already, or whose camera has another job that is, waits for the engine, not for a moment.
        """
        moments = [self._deadlines.mark, *(lane.next_due(now) for lane in self._lanes.values())]
        return min((each for each in moments if each is not None), default=None)

    def expired(self, now: float) -> list[Ticket]:
        """Take out the jobs whose deadline has passed."""
        late = self._deadlines.take(now)
        for each in late:
            self._take(each)
        return [each.ticket for each in late]

    def _first(self, limit: int, now: float) -> list[Waiting]:
        self._promote(now)
        order = list(self._suspects.values())[:limit]
        for lane in self._lanes.values():
            if len(order) < limit:
                order += lane.first(limit - len(order), now, order)
        return order

    def _ahead_of(self, each: Waiting) -> int:
        sooner = _PRIORITIES[: _PRIORITIES.index(each.priority)]
        before = len(self._suspects) + sum(len(self._lanes[priority]) for priority in sooner)
        return before + self._lanes[each.priority].ahead_of(each.job)

    def _promote(self, now: float) -> None:
        """Move up what has waited long enough.

        It is then that priority's equal, whose turns are by arrival: were those who came with it always before, a flood
        of them would let it starve all the same.
        """
        if now <= self._promoted_at:
            return  # what was told of this moment still holds
        self._promoted_at = now
        for each in self._promotions.take(now, _PROMOTED_AT_ONCE):
            self._lanes[each.priority].remove(each)
            each.priority = _PRIORITIES[_PRIORITIES.index(each.priority) - 1]
            self._enter(each)

    def _enter(self, each: Waiting) -> None:
        self._lanes[each.priority].push(each)
        rank = _PRIORITIES.index(each.priority)
        if rank:
            self._promotions.put(each, each.since + _PATIENCE_S * (1 + _PRIORITIES.index(each.job.priority) - rank))

    def _older(self, job: Job) -> Waiting | None:
        """Return the frame that ``job`` would replace."""
        return None if job.frame is None else self._frames.get(camera_of(job))

    def _take(self, each: Waiting) -> None:
        job = each.job
        del self._waiting[job.key]
        self._count(job, -1)
        self._deadlines.drop(each)
        self._promotions.drop(each)
        if each.ticket.deaths:
            del self._suspects[job.key]
            return
        self._lanes[each.priority].remove(each)
        if job.frame is not None:
            del self._frames[camera_of(job)]

    def _count(self, job: Job, by: int) -> None:
        self._bytes += by * _size(job)
        self._pictures += by * (job.camera is not None)
        self._by_client[job.client] += by
        if not self._by_client[job.client]:
            del self._by_client[job.client]

    def _bytes_full(self, job: Job, older: Waiting | None) -> str | None:
        taken, more = self._bytes - (0 if older is None else _size(older.job)), _size(job)
        if more and taken + more > _MAX_BYTES:
            return f"{taken:,} bytes of pictures wait here already, and at most {_MAX_BYTES:,}"
        return None

    def _places_full(self, job: Job) -> str | None:
        """Say which of the bounds on jobs is reached: of all, of cameras, or of this client."""
        of_client, of_cameras = self._by_client[job.client], _most_of(self.max_jobs)
        if self.full:
            return f"{len(self) + self._held} jobs wait here already, and at most {self.max_jobs}"
        if job.camera is not None and self._pictures >= of_cameras:
            return f"{self._pictures} jobs of cameras wait here already, and at most {of_cameras}"
        if of_client >= self._max_jobs_per_client:
            return f"{of_client} jobs of this client wait here already, and at most {self._max_jobs_per_client}"
        return None


def _most_of(places: int) -> int:
    """Return how many places cameras may take of text, and one client of the others: all but the last quarter.

    With fewer than four, all: a reserve of one would be half of two.
    """
    return places - places // 4


def _size(job: Job) -> int:
    return sum(map(len, job.pictures))
