"""Whose turn it is among the jobs of one priority: text beside cameras, and each camera beside the others."""

import math
from collections import Counter
from typing import NamedTuple

from agent.admission.ticket import Camera, Ticket, camera_of
from agent.contract.jobs import Job, Key, Priority

# Three texts, then a camera: a picture costs as much as several texts (on four cores Phi-3.5-vision was seen to take
# 47.8 s for one), so text goes first; yet texts that never end must not blind the cameras.
_TEXTS_IN_A_ROW = 3
# Clients make up the names of cameras, so what is remembered of them needs a bound. A camera that is forgotten counts
# as new, and does not wait for its interval.
_MAX_CAMERAS = 1024


class _Starts(NamedTuple):
    """When the last job of a camera started, and when its last raw frame did."""

    at: float
    frame_at: float


_NEVER = _Starts(-math.inf, -math.inf)


class Turns:
    """What was started: how many texts in a row in each priority, and when each camera had its turn."""

    def __init__(self) -> None:
        self._texts: Counter[Priority] = Counter()
        self._cameras: dict[Camera, _Starts] = {}

    def took(self, job: Job, now: float) -> None:
        """Take note that ``job`` starts."""
        if job.camera is None:
            self._texts[job.priority] = min(self._texts[job.priority] + 1, _TEXTS_IN_A_ROW)
            return
        self._texts[job.priority] = 0
        camera = camera_of(job)
        before = self._cameras.pop(camera, _NEVER)
        # Put back at the end: the first is always the one whose turn was longest ago.
        self._cameras[camera] = _Starts(now, before.frame_at if job.frame is None else now)
        if len(self._cameras) > _MAX_CAMERAS:
            del self._cameras[next(iter(self._cameras))]

    def texts_left(self, priority: Priority) -> int:
        """Tell how many texts may start before a camera that waits."""
        return _TEXTS_IN_A_ROW - self._texts[priority]

    def last(self, camera: Camera) -> float | None:
        """Tell when a camera had its last turn; None if it had none."""
        starts = self._cameras.get(camera)
        return None if starts is None else starts.at

    def due_at(self, job: Job) -> float:
        """Tell from when on ``job`` may start: a frame has to keep its camera's interval."""
        if job.frame is None:
            return -math.inf
        return self._cameras.get(camera_of(job), _NEVER).frame_at + job.frame.min_interval_s


class Lane:
    """The jobs of one priority that wait."""

    def __init__(self, priority: Priority, turns: Turns) -> None:
        self._priority = priority
        self._turns = turns
        self._texts: dict[Key, Ticket] = {}
        # In the order in which the cameras began to wait: a frame that replaces another keeps the camera's place.
        self._cameras: dict[Camera, dict[Key, Ticket]] = {}
        # When each of them began to wait, by its first job, which may be gone.
        self._came: dict[Camera, float] = {}

    def __len__(self) -> int:
        return len(self._texts) + self._pictures

    @property
    def _pictures(self) -> int:
        return sum(map(len, self._cameras.values()))

    def push(self, ticket: Ticket) -> None:
        """Let a job wait."""
        if ticket.job.camera is None:
            self._texts[ticket.job.key] = ticket
        else:
            camera = camera_of(ticket.job)
            self._cameras.setdefault(camera, {})[ticket.job.key] = ticket
            self._came.setdefault(camera, ticket.received_at)

    def ahead_of(self, job: Job) -> int:
        """Tell how many of those that wait here start before ``job``, the last of its kind; for a camera, at most."""
        texts, pictures = len(self._texts), self._pictures
        left = self._turns.texts_left(self._priority)
        if job.camera is None:
            return texts - 1 + min(pictures, (texts - 1 + _TEXTS_IN_A_ROW - left) // _TEXTS_IN_A_ROW)
        return pictures - 1 + min(texts, (pictures - 1) * _TEXTS_IN_A_ROW + left)

    def remove(self, ticket: Ticket) -> None:
        """Take out a job that waits here."""
        if ticket.job.camera is None:
            del self._texts[ticket.job.key]
            return
        camera = camera_of(ticket.job)
        del self._cameras[camera][ticket.job.key]
        if not self._cameras[camera]:
            del self._cameras[camera], self._came[camera]

    def next(self, now: float) -> Ticket | None:
        """Tell whose turn it is, leaving it here; a frame that is not due holds up nobody."""
        text = next(iter(self._texts.values()), None)
        if text is not None and self._turns.texts_left(self._priority):
            return text
        firsts = [first for jobs in self._cameras.values() if (first := self._first_due(jobs, now))]
        return min(firsts, key=self._since, default=text)

    def _since(self, first: Ticket) -> tuple[float, bool]:
        """Tell since when a camera is without a turn: a new one, since it came, or whoever made up names went first."""
        camera = camera_of(first.job)
        last = self._turns.last(camera)
        return (self._came[camera], False) if last is None else (last, True)

    def _first_due(self, jobs: dict[Key, Ticket], now: float) -> Ticket | None:
        return next((each for each in jobs.values() if self._turns.due_at(each.job) <= now), None)
