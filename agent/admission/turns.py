"""Whose turn it is among the jobs of one priority: text beside cameras, and each camera or client beside the others."""

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import NamedTuple

from agent.admission.order import Order
from agent.admission.ticket import Camera, Ticket, camera_of
from agent.contract.jobs import Job, Priority

# Three texts, then a camera: a picture costs as much as several texts (on four cores Phi-3.5-vision was seen to take
# 47.8 s for one), so text goes first; yet texts that never end must not blind the cameras.
_TEXTS_IN_A_ROW = 3
# Clients make up names, their own and those of cameras, so what is remembered of each kind needs a bound. A camera that
# is forgotten counts as new, and does not wait for its interval.
_MAX_REMEMBERED = 1024


@dataclass(eq=False, slots=True)
class Waiting:
    """A ticket in the queue.

    Attributes:
        since: from when on it counts as waiting: its arrival, or that of the frame whose place it took.
        priority: the one that it has now, which rises as it waits.

    """

    ticket: Ticket
    since: float
    priority: Priority

    @property
    def job(self) -> Job:
        """The job that waits."""
        return self.ticket.job


class Starts(NamedTuple):
    """When the last job of a camera or a client started, and when its last raw frame did."""

    at: float
    frame_at: float


_NEVER = Starts(-math.inf, -math.inf)


class Turns:
    """What was started: how many texts in a row in each priority, and when each camera and client had its turn."""

    def __init__(self, cameras: dict[Camera, Starts] | None = None) -> None:
        self._texts: Counter[Priority] = Counter()
        self._cameras = {} if cameras is None else cameras
        self._clients: dict[Camera, Starts] = {}

    def took(self, job: Job, priority: Priority, now: float) -> None:
        """Take note that ``job`` starts, at the priority that it has come to."""
        is_text = job.camera is None
        self._texts[priority] = min(self._texts[priority] + 1, _TEXTS_IN_A_ROW) if is_text else 0
        starts, who = self._starts(camera_of(job)), camera_of(job)
        before = starts.pop(who, _NEVER)
        # Put back at the end: the first is always the one whose turn was longest ago.
        starts[who] = Starts(now, before.frame_at if job.frame is None else now)
        if len(starts) > _MAX_REMEMBERED:
            del starts[next(iter(starts))]

    def texts_left(self, priority: Priority) -> int:
        """Tell how many texts may start before a camera that waits."""
        return _TEXTS_IN_A_ROW - self._texts[priority]

    def last(self, who: Camera) -> float | None:
        """Tell when a camera, or a client with its texts, had its last turn; None if it had none."""
        starts = self._starts(who).get(who)
        return None if starts is None else starts.at

    def due_at(self, job: Job) -> float:
        """Tell from when on ``job`` may start: a frame has to keep its camera's interval."""
        if job.frame is None:
            return -math.inf
        return self._cameras.get(camera_of(job), _NEVER).frame_at + job.frame.min_interval_s

    def _starts(self, who: Camera) -> dict[Camera, Starts]:
        return self._clients if who[1] is None else self._cameras


class Line:
    """Jobs of one priority whose cameras take turns; or texts, whose clients do. Each one's start in order of arrival.

    It is the turn of the one whose last start is longest ago. One that had none waits since it came, or whoever made up
    names would always be first.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._len = 0
        self._jobs: dict[Camera, Order[Waiting]] = {}
        # When each began to wait, by the first of its jobs, which may be gone.
        self._came: dict[Camera, float] = {}
        # The frame among a camera's jobs; a frame that replaces another is there beside it for a moment.
        self._frames: dict[Camera, Waiting] = {}
        self._ready: Order[Camera] = Order()
        # Cameras of which only a frame waits that is not due, by when it is.
        self._resting: Order[Camera] = Order()

    def __len__(self) -> int:
        return self._len

    def push(self, each: Waiting) -> None:
        """Let a job wait."""
        who = camera_of(each.job)
        self._len += 1
        self._jobs.setdefault(who, Order()).put(each, each.ticket.received_at)
        self._came[who] = min(each.since, self._came.get(who, each.since))
        if each.job.frame is not None:
            self._frames[who] = each
        self._place(who)

    def remove(self, each: Waiting) -> None:
        """Take out a job that waits here."""
        who = camera_of(each.job)
        self._len -= 1
        self._jobs[who].drop(each)
        if self._frames.get(who) is each:
            del self._frames[who]
        if not self._jobs[who]:
            del self._jobs[who], self._came[who]
        self._place(who)

    def turned(self, who: Camera) -> None:
        """Take note that a camera or a client had a turn, in whatever line."""
        self._ready.drop(who)  # that it is behind those, too, that had theirs at the same moment
        self._place(who)

    def next_due(self, now: float) -> float | None:
        """Tell when the next frame comes due; one that is due already waits for the engine, not for a moment."""
        for who in self._resting.take(now):
            self._ready.put(who, self._since(who))
        return self._resting.mark

    def first(self, limit: int, now: float, started: Sequence[Waiting]) -> list[Waiting]:
        """Tell which ``limit`` jobs start next, in order, if all start now; one that is not due holds up nobody.

        Args:
            limit: how many, at the most.
            now: the monotonic clock, in seconds.
            started: what is to have started until then, in order.

        """
        self.next_due(now)
        turns = {camera_of(each.job): turn for turn, each in enumerate(started)}
        row = self._ready.first(limit + len(turns))
        row.sort(key=lambda who: turns.get(who, -1))
        del row[limit:]
        rounds = 1
        # Twice as many at a time: one who has many jobs may stand in line with those who have one.
        while sum(map(len, jobs := [self._due(who, rounds, now) for who in row])) < limit:
            if max(map(len, jobs), default=0) < rounds:
                break
            rounds *= 2
        return [each for each in chain.from_iterable(zip_longest(*jobs)) if each is not None][:limit]

    def ahead_of(self, job: Job) -> int:
        """Tell how many jobs start before ``job``, the last of its camera or client; at most, if there are others."""
        own = len(self._jobs[camera_of(job)])
        return own - 1 + min(len(self) - own, own * (len(self._jobs) - 1))

    def _place(self, who: Camera) -> None:
        """Put a camera or a client where it stands now among those that wait, if it does: after every change to it."""
        frame = self._frames.get(who)
        if who not in self._jobs:
            self._ready.drop(who)
            self._resting.drop(who)
        elif frame is not None and len(self._jobs[who]) == 1 and (due := self._turns.due_at(frame.job)) > -math.inf:
            self._ready.drop(who)
            self._resting.put(who, due)
        else:
            self._resting.drop(who)
            self._ready.put(who, self._since(who))

    def _since(self, who: Camera) -> float:
        last = self._turns.last(who)
        return self._came[who] if last is None else last

    def _due(self, who: Camera, limit: int, now: float) -> list[Waiting]:
        if who not in self._frames:
            return self._jobs[who].first(limit)
        jobs = self._jobs[who].first(limit + 1)
        return [each for each in jobs if self._turns.due_at(each.job) <= now][:limit]


class Lane:
    """The jobs of one priority that wait."""

    def __init__(self, priority: Priority, turns: Turns) -> None:
        self._priority = priority
        self._turns = turns
        self._texts = Line(turns)
        self._pictures = Line(turns)

    def __len__(self) -> int:
        return len(self._texts) + len(self._pictures)

    def push(self, each: Waiting) -> None:
        """Let a job wait."""
        self._line(each.job.camera).push(each)

    def remove(self, each: Waiting) -> None:
        """Take out a job that waits here."""
        self._line(each.job.camera).remove(each)

    def turned(self, who: Camera) -> None:
        """Take note that a camera or a client had a turn, in whatever lane."""
        self._line(who[1]).turned(who)

    def next_due(self, now: float) -> float | None:
        """Tell when the next frame comes due that is not yet."""
        return self._pictures.next_due(now)

    def first(self, limit: int, now: float, started: Sequence[Waiting]) -> list[Waiting]:
        """Tell which ``limit`` jobs start next, in order, if all start now; see `Line.first`."""
        texts = deque(self._texts.first(limit, now, started))
        pictures = deque(self._pictures.first(limit, now, started))
        left = self._turns.texts_left(self._priority)
        order: list[Waiting] = []
        while len(order) < limit and (texts or pictures):
            if texts and (left or not pictures):
                order.append(texts.popleft())
                left = max(left - 1, 0)
            else:
                order.append(pictures.popleft())
                left = _TEXTS_IN_A_ROW
        return order

    def ahead_of(self, job: Job) -> int:
        """Tell how many of those that wait here start before ``job``, the last of its camera or client; at most.

        For a text it is exact if all texts are one client's.
        """
        before, left = self._line(job.camera).ahead_of(job), self._turns.texts_left(self._priority)
        if job.camera is None:
            return before + min(len(self._pictures), (before + _TEXTS_IN_A_ROW - left) // _TEXTS_IN_A_ROW)
        return before + min(len(self._texts), before * _TEXTS_IN_A_ROW + left)

    def _line(self, camera: str | None) -> Line:
        return self._texts if camera is None else self._pictures
