"""A load: when its jobs come, what a client was told of each, and what that amounts to. Pure.

Every time is in seconds from the load's beginning.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

# How much later than a lone job's a final may come.
PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What loads and deadlines of a box are multiples of.

    Attributes:
        lone_s: from a job's publication to its final, where the box has nothing else to do.
        capacity: jobs that the box's own engine ends in a second, when it always has some.

    """

    lone_s: float
    capacity: float

    @property
    def deadline_s(self) -> float:
        """How long each job of a load may take."""
        return PATIENCE * self.lone_s


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told of one job.

    Attributes:
        due_s: when it was to be published. Everything counts from here, so that a bench that falls behind its own
            plan cannot flatter the box.
        ended_s: its final.
        state: the final's.
        where: the final's, ``local``, ``cloud`` or ``none``.
        accepted_s: when it was told that the job is taken on; None if it never was.
        started_s: the same, of its (last) start.
        foretold_s: its end as it was predicted then, in seconds from ``accepted_s``.

    """

    due_s: float
    ended_s: float
    state: str
    where: str
    accepted_s: float | None = None
    started_s: float | None = None
    foretold_s: float | None = None

    @property
    def took_s(self) -> float:
        """How long it took."""
        return self.ended_s - self.due_s

    @property
    def misjudged(self) -> float | None:
        """How far off the predicted end was, as a share of the real time to it; None without a prediction."""
        if self.accepted_s is None or self.foretold_s is None:
            return None
        real = self.ended_s - self.accepted_s
        return abs(real - self.foretold_s) / real


def arrivals(rate: float, seconds: float, random: Random) -> list[float]:
    """Draw when the jobs of a Poisson process of ``rate`` a second come, for so many ``seconds``."""
    times, now = [], random.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += random.expovariate(rate)
    return times


def must_leave(due: Iterable[float], yardstick: Yardstick) -> int:
    """Count the jobs that even an oracle would send elsewhere, which knows when each would begin and end.

    It keeps each job that can end in time, one after another; for jobs of one size nothing keeps more. Of a Poisson
    process at half the capacity it sends 2.7 % elsewhere (two million jobs, simulated).
    """
    free, left = 0.0, 0
    for now in due:
        begins = max(now, free)
        if begins + yardstick.lone_s - now > yardstick.deadline_s:
            left += 1
        else:
            free = begins + 1 / yardstick.capacity
    return left


def quantile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that ``share`` of all do not exceed; NaN if there are none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


@dataclass(frozen=True, slots=True)
class Load:
    """A load that was put on a box.

    Attributes:
        factor: the rate at which jobs came, in multiples of the capacity.
        cloud: whether the box had one.
        yardstick: the same box's.
        seconds: for how long they came.
        told: of each job.

    """

    factor: float
    cloud: bool
    yardstick: Yardstick
    seconds: float
    told: Sequence[Told]

    def answered(self, *where: str) -> list[Told]:
        """Return the jobs that were answered within their deadline, there."""
        return [
            each
            for each in self.told
            if each.state == "SUCCEEDED" and each.where in where and each.took_s <= self.yardstick.deadline_s
        ]

    @property
    def within(self) -> float:
        """The share of all jobs that were answered within their deadline. A refusal is no answer."""
        return len(self.answered("local", "cloud")) / len(self.told)

    @property
    def refused(self) -> list[Told]:
        """The jobs that were refused."""
        return [each for each in self.told if each.state == "REJECTED"]

    @property
    def took_s(self) -> list[float]:
        """How long each job took that was not refused."""
        return [each.took_s for each in self.told if each.state != "REJECTED"]

    @property
    def late(self) -> int:
        """How many were neither answered in time nor refused."""
        return len(self.told) - len(self.answered("local", "cloud")) - len(self.refused)

    @property
    def sent(self) -> int:
        """How many ran in the cloud."""
        return sum(each.where == "cloud" for each in self.told)

    @property
    def goodput(self) -> float:
        """Jobs a second that were answered in time, as a share of the capacity; until the last final."""
        seconds = max([self.seconds, *(each.ended_s for each in self.told)])
        return len(self.answered("local", "cloud")) / seconds / self.yardstick.capacity

    @property
    def busy(self) -> float:
        """The share of the time, while jobs came, in which the box's own engine had a job that it had started."""
        here = [each for each in self.told if each.where == "local"]
        total, until = 0.0, 0.0
        for start, end in sorted((each.started_s, each.ended_s) for each in here if each.started_s is not None):
            total += max(0.0, min(end, self.seconds) - max(start, until))
            until = max(until, end)
        return total / self.seconds

    def misjudged(self, where: str) -> list[float]:
        """How far off the predicted ends were, of the jobs that ran there and were given one."""
        return [each.misjudged for each in self.told if each.where == where and each.misjudged is not None]

    def as_dict(self) -> dict[str, object]:
        """Return what the table shows, for a script; times in seconds, and null where there is nothing to tell of."""
        numbers = {
            "load": self.factor,
            "lone_s": self.yardstick.lone_s,
            "capacity_per_s": self.yardstick.capacity,
            "within_deadline": self.within,
            "refusal_p50_s": quantile((each.took_s for each in self.refused), 0.5),
            "refusal_p99_s": quantile((each.took_s for each in self.refused), 0.99),
            "goodput": self.goodput,
            "busy": self.busy,
            "took_p50_s": quantile(self.took_s, 0.5),
            "took_p90_s": quantile(self.took_s, 0.9),
            "local_error_p50": quantile(self.misjudged("local"), 0.5),
            "local_error_p90": quantile(self.misjudged("local"), 0.9),
            "cloud_error_p50": quantile(self.misjudged("cloud"), 0.5),
            "cloud_error_p90": quantile(self.misjudged("cloud"), 0.9),
        }
        counts: dict[str, object] = {
            "cloud": self.cloud,
            "jobs": len(self.told),
            "answered_local": len(self.answered("local")),
            "answered_cloud": len(self.answered("cloud")),
            "refused": len(self.refused),
            "late": self.late,
        }
        return counts | {name: None if math.isnan(number) else number for name, number in numbers.items()}
