"""How long an answer will be, from how long those before it were."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

# A client that asks the same again and again is known after a few answers; one that changed its question, soon again.
_REMEMBERED = 32


class Length(NamedTuple):
    """How many tokens an answer had; of one that was ``cut`` short, that it would have had more."""

    tokens: int
    cut: bool


class Lengths:
    """The lengths of the last answers."""

    def __init__(self, lengths: Iterable[Length] = ()) -> None:
        self._last = deque(lengths, _REMEMBERED)
        self._sorted = sorted(self._last)

    @property
    def last(self) -> list[Length]:
        """The lengths, the oldest first."""
        return list(self._last)

    def add(self, tokens: int, *, cut: bool) -> None:
        """Take note of an answer."""
        self._last.append(Length(tokens, cut))
        self._sorted = sorted(self._last)

    def expected(self, have: int, most: float) -> float | None:
        """Return how long an answer will be that has ``have`` tokens and may have ``most``; None if none came as far.

        It is the mean of those that came as far; where some were cut short, the area under the survival curve of Kaplan
        and Meier (J. Am. Stat. Assoc. 53, 1958): an answer that was cut after 16 tokens says nothing of the 17th.

        The curve ends with the longest answer. Where that was cut, one that may be longer probably will be. But a job
        that is believed to be short runs, and shows how long it is; one that is believed to be as long as it may be is
        refused, and shows nothing, ever.
        """
        longer = [each for each in self._sorted if each.tokens > have]
        if not longer:
            return None
        length, share, at = float(have), 1.0, float(have)
        for left, each in zip(range(len(longer), 0, -1), longer, strict=True):
            end = max(min(each.tokens, most), at)
            length += share * (end - at)
            at = end
            if not each.cut:
                share *= 1 - 1 / left
        return length
