"""What the samples of a soak say: does a process grow, does it keep what it opens, was it there all the time? Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean, linear_regression, median
from typing import Literal

# How much a process has at rest, by what a window of samples saw of it; and which processes there are to be. Of the
# agent and of the model that sees it is the least, since a picture takes 45 MB for as long as it is looked at. The
# text model never rests: its KV caches come and go in steps of 12 MB, 3 % of its memory. A quantile jumps by a whole
# step where the mean moves by how often the step was taken.
AT_REST: dict[str, Callable[[Sequence[int]], float]] = {"agent": min, "smollm2-135m": fmean, "shapes-vision": min}
# The run is cut into so many windows: five minutes of an hour. The later half of them is judged.
_WINDOWS = 12
_LATE = _WINDOWS // 2
# What the line through the levels at rest may move, and how far those of any ten minutes may lie apart. The line is for
# a leak, the distance for a jump that the line averages away. Of five minutes each, what the text model's caches happen
# to be differs by up to 3 %.
_FLAT = 0.03
# What was opened in the last seconds is seen too: in the least of so many samples, since one may fall on a file that
# is open for a moment.
_LAST_LOOKS = 20


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
        finals: how many jobs were answered so far.

    """

    at_s: float
    process: str
    pid: int
    resident: int
    anonymous: int
    descriptors: int
    threads: int
    finals: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong, as a sentence."""

    kind: Literal["processes", "memory", "descriptors", "load", "answers"]
    sentence: str


@dataclass(frozen=True, slots=True)
class Line:
    """The line through a process's levels at rest in the last half of the run.

    Attributes:
        level: their median, in bytes.
        per_hour: how it rises, in bytes.
        growth: what it moves in that half, as a share of the level.
        spread: how far the levels of any two neighbouring windows lie apart, as a share of it.

    """

    level: float
    per_hour: float
    growth: float
    spread: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of the memory of one process.

    Attributes:
        resident, anonymous: at rest.
        peaks: the most that was seen to be resident in the first half of the run, and in the last, in bytes.
        taken: how much of its files was not in memory any more, at the worst moment, in bytes. That is the kernel's
            doing, not its own; as they come back, resident memory rises.

    """

    resident: Line
    anonymous: Line
    peaks: tuple[int, int]
    taken: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to be said of all; of a process that was not there all the time there is no verdict."""

    verdicts: dict[str, Verdict]
    faults: list[Fault]


def judge(samples: Mapping[str, Sequence[Sample]]) -> Judgement:
    """Judge the samples of all processes, each in the order of time, over the time that the agent was looked at."""
    unknown = samples.keys() - AT_REST.keys()
    judgement = Judgement({}, [Fault("processes", f"{each}: nobody knows it") for each in sorted(unknown)])
    agent = samples.get("agent") or ()
    begun_s, took_s = (agent[0].at_s, agent[-1].at_s - agent[0].at_s) if agent else (0.0, 0.0)
    for process in AT_REST:
        windows: list[list[Sample]] = [[] for _ in range(_WINDOWS)]
        for each in samples.get(process, ()):
            windows[min(_WINDOWS - 1, int(_WINDOWS * (each.at_s - begun_s) / (took_s or 1)))].append(each)
        if all(windows):
            verdict = judgement.verdicts[process] = _verdict(process, windows, took_s)
            judgement.faults.extend(_of_memory(process, verdict))
            judgement.faults.extend(_of_files(process, windows[_LATE:]))
        else:
            there = f"{sum(map(bool, windows))} of {_WINDOWS} parts of the time"
            judgement.faults.append(Fault("processes", f"{process}: it was there in {there}"))
        if len({each.pid for window in windows for each in window}) > 1:
            judgement.faults.append(Fault("processes", f"{process}: it was started again, its memory says nothing"))
    judgement.faults.extend(_of_load(agent, begun_s, took_s))
    return judgement


def _verdict(process: str, windows: Sequence[Sequence[Sample]], took_s: float) -> Verdict:
    def line(values: Callable[[Sample], int]) -> Line:
        levels = [AT_REST[process]([values(each) for each in window]) for window in windows[_LATE:]]
        slope, level = linear_regression(range(len(levels)), levels).slope, median(levels)
        per_hour = slope * 3600 * _WINDOWS / took_s
        smooth = [fmean(pair) for pair in pairwise(levels)]
        return Line(level, per_hour, slope * len(levels) / level, (max(smooth) - min(smooth)) / level)

    def most(half: Sequence[Sequence[Sample]]) -> int:
        return max(each.resident for window in half for each in window)

    peaks = most(windows[:_LATE]), most(windows[_LATE:])
    files = [each.resident - each.anonymous for window in windows for each in window]
    taken = max(had - has for had, has in zip(accumulate(files, max), files, strict=True))
    return Verdict(line(lambda each: each.resident), line(lambda each: each.anonymous), peaks, taken)


def _of_memory(process: str, verdict: Verdict) -> Iterator[Fault]:
    for name, line in (("memory", verdict.resident), ("anonymous memory", verdict.anonymous)):
        if abs(line.growth) > _FLAT:
            yield Fault("memory", f"{process}: its {name} at rest moves by {line.growth:+.1%}")
    # Not the anonymous memory's too, which is looked at for a leak behind files that the kernel takes back: it is less,
    # so that the text model's steps are more of it, and its windows lay 2 % apart without a leak.
    if verdict.resident.spread > _FLAT:
        yield Fault("memory", f"{process}: its memory at rest wanders by {verdict.resident.spread:.1%}")
    # Upwards alone, and over half an hour each: how much of a burst a look falls on is chance.
    before, after = verdict.peaks
    if after > before * (1 + _FLAT):
        yield Fault("memory", f"{process}: its most memory grew by {after / before - 1:+.1%}")


def _of_files(process: str, windows: Sequence[Sequence[Sample]]) -> Iterator[Fault]:
    last = [each for window in windows for each in window][-_LAST_LOOKS:]
    least = [min(each.descriptors for each in looks) for looks in (*windows, last)]
    if len(set(least)) > 1:
        yield Fault("descriptors", f"{process}: its descriptors go from {min(least)} to {max(least)}")


def _of_load(agent: Sequence[Sample], begun_s: float, took_s: float) -> Iterator[Fault]:
    """Tell of windows without an answer: a box that does nothing is flat."""
    ends = [begun_s + took_s * number / _WINDOWS for number in range(_WINDOWS + 1)]
    finals = [max((each.finals for each in agent if each.at_s <= end), default=0) for end in ends]
    silent = sum(before == after for before, after in pairwise(finals))
    if silent:
        yield Fault("load", f"nothing was answered in {silent} of {_WINDOWS} parts of the time")
