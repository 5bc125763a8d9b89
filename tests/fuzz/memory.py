"""What the agent's memory at rest says: does it keep anything of the messages that it had? Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import linear_regression, median

# What comes before is warming up: of every kind of message the agent has to have seen some.
_WARM_SHARE, _WARM = 5, 10_000
# Of the samples after that, one half is held against the other.
_LEAST_SAMPLES = 8
_GROWTH, _GROWTH_BYTES = 1.03, 2 << 20
# The line through them all, in bytes a message: a forgotten client's name and topic take several times as much.
_SLOPE = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The agent at one moment, when all that was sent is answered.

    Attributes:
        sent: how many messages it had.
        agent: its resident memory, in bytes.
        peak: the most that was resident at any moment so far, in bytes.
        workers: resident memory of its workers, in bytes.
        descriptors: the agent's open files.
        pids: of the agent and its workers.

    """

    sent: int
    agent: int
    peak: int = 0
    workers: int = 0
    descriptors: int = 0
    pids: tuple[int, ...] = ()


def settled(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples that count; none of them if they are too few to be judged."""
    warm = max(samples[-1].sent // _WARM_SHARE, _WARM)
    found = [each for each in samples if each.sent > warm]
    return found if len(found) >= _LEAST_SAMPLES else []


def slope(samples: Sequence[Sample]) -> float:
    """Return what the line through the samples rises, in bytes a message."""
    return linear_regression([each.sent for each in samples], [each.agent for each in samples]).slope


def growth(samples: Sequence[Sample]) -> list[str]:
    """Tell how the agent grew, a sentence each: in its least, its median or its most memory at rest, or steadily."""
    late = settled(samples)
    if not late:
        return []
    found = []
    levels = [each.agent for each in late]
    half = len(levels) // 2
    for name, statistic in (("least", min), ("median", median), ("most", max)):
        before, after = statistic(levels[:half]), statistic(levels[half:])
        if after > max(before * _GROWTH, before + _GROWTH_BYTES):
            found.append(f"the agent's {name} memory at rest grew from {before:,.0f} to {after:,.0f} bytes")
    if slope(late) > _SLOPE:
        found.append(f"the agent's memory at rest grows by {slope(late):.0f} bytes a message")
    return found
