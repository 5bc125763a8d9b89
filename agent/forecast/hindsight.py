"""How good predictions have been."""

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

_REMEMBERED = 64
# Nine in ten predictions should hold: of 64 jobs some are always late for reasons that nobody could see.
_SURE = 0.9
# What is assumed before anything is known, as if it had been seen ten times.
_ASSUMED = [1.15] * 10
# A box that needs more is so busy with something else that its past says nothing of its future. With deadlines of three
# times what a job takes, a factor of three refused every job, and so there was none that could have shown it wrong.
_MOST = 1.5
# A ratio beyond these says no more than they do.
LEAST, MOST = 0.01, 100.0


class Error(NamedTuple):
    """Of how far predictions were off, as a share of the real time."""

    median: float
    p90: float


class Hindsight:
    """The last real durations, each as a multiple of the predicted one."""

    def __init__(self, ratios: Iterable[float] = ()) -> None:
        self._seen = deque(ratios, _REMEMBERED)

    def __repr__(self) -> str:
        return f"<Hindsight {len(self._seen)} seen, slack {self.slack:.2f}, error {self.error}>"

    @property
    def ratios(self) -> list[float]:
        """What was seen, the oldest first, well enough to go on from."""
        return [round(each, 3) for each in self._seen]

    @property
    def slack(self) -> float:
        """By what factor nine in ten real durations exceed the predicted ones at most; at least 1."""
        assumed = _ASSUMED[: _REMEMBERED - len(self._seen)]
        return min(max(_quantile([*self._seen, *assumed], _SURE), 1.0), _MOST)

    @property
    def error(self) -> Error | None:
        """How far predictions were off; None while there were none."""
        if not self._seen:
            return None
        off = [abs(1 - 1 / each) for each in self._seen]
        return Error(_quantile(off, 0.5), _quantile(off, 0.9))

    def ended(self, predicted_s: float, real_s: float) -> None:
        """Take note of a job that ended after ``real_s`` seconds."""
        if 0 < predicted_s < inf and 0 < real_s < inf:
            self._seen.append(min(max(real_s / predicted_s, LEAST), MOST))


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1) + 0.5)]
