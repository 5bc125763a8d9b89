"""What an hour's samples of a process say: does it grow, and does it keep what it opens? Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import linear_regression, median

# The last half of the run is cut into so many windows: five minutes of an hour.
_WINDOWS = 6
# Of the most memory that each window saw: what the line through them moves, and how far they lie apart. The line is
# for a leak, the distance for a jump that the line averages away. The most and not the mean, which goes by how busy
# the machine is: a picture takes 45 MB for as long as it is looked at, and a text job its KV cache.
_FLAT = 0.03


@dataclass(frozen=True, slots=True)
class Sample:
    """A look at a process.

    Attributes:
        at_s: seconds since the first look.
        process: which one it is: ``agent``, or an inference process by its model.
        pid: its number, which changes when it is started again.
        resident: bytes in memory, those of mapped files among them.
        anonymous: bytes in memory that are no file's, which a leak is made of.
        descriptors: how many are open.
        threads: how many it has.

    """

    at_s: float
    process: str
    pid: int
    resident: int
    anonymous: int
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of one process.

    Attributes:
        growth: what the line through the last half's windows moves, as a share of its memory.
        spread: how far they lie apart, as a share of it.
        faults: sentences; empty if all is well.

    """

    growth: float
    spread: float
    faults: tuple[str, ...]


def judge(samples: Sequence[Sample]) -> Verdict:
    """Judge one process by its samples, in their order; the last half of them counts, by time."""
    windows = _windows(last_half(samples))
    if len(windows) < _WINDOWS:
        return Verdict(0.0, 0.0, ("too few samples",))
    most = [max(each.resident for each in window) for window in windows]
    level = median(most)
    growth = linear_regression(range(_WINDOWS), most).slope * _WINDOWS / level
    spread = (max(most) - min(most)) / level
    faults = []
    if len({each.pid for each in samples}) > 1:
        faults.append("it was started again, so that its memory says nothing")
    if abs(growth) > _FLAT:
        faults.append(f"its memory moves by {growth:+.1%}")
    if spread > _FLAT:
        faults.append(f"its memory wanders by {spread:.1%}")
    # A look may fall on a file that is open for a moment, so not every sample has to be the same.
    open_files = {median(each.descriptors for each in window) for window in windows}
    if len(open_files) > 1:
        faults.append(f"its descriptors go from {min(open_files):g} to {max(open_files):g}")
    return Verdict(growth, spread, tuple(faults))


def last_half(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples of the later half of the time."""
    if not samples:
        return []
    middle = (samples[0].at_s + samples[-1].at_s) / 2
    return [each for each in samples if each.at_s >= middle]


def _windows(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Cut samples into windows of the same length; less of them if there is nothing to be seen in one."""
    if not samples:
        return []
    begun, took_s = samples[0].at_s, samples[-1].at_s - samples[0].at_s

    def index(each: Sample) -> int:
        return min(_WINDOWS - 1, int(_WINDOWS * (each.at_s - begun) / (took_s or 1)))

    return [list(window) for _, window in groupby(samples, index)]
