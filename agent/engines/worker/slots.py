"""Where a job runs, how much of its prompt is already computed there, and in which slices the rest is.

A slot keeps the KV cache of the last job that ran in it. A new job that begins with the same tokens (a fleet's
system prompt, a conversation's earlier turns) goes on from there instead of computing them again.

Everything here is pure. Prefill runs in slices that begin and end at multiples of `ALIGN` tokens and are never
of one token: the matrix kernels compute rows in tiles and a lone row in another way, so only such cuts give the
same logits to the last bit as a prefill in one call. (Measured on CPU, int4: multiples of 8 differ by 0.0, a last
slice of one token by 0.5.) Tokens that were decoded were lone rows too; a job that must repeat exactly may
not build on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

ALIGN = 8
# Below this, slices cost: prefill ran at 375 tokens/s in slices of 64, 326 of 16, 260 of 8.
_LEAST = 16
# Above this, they gain nothing, and their activations take memory.
_MOST = 512


@dataclass(eq=False)
class Held:
    """What a slot's cache holds.

    Attributes:
        capacity: tokens it has room for; 0 for a slot without a cache.
        tokens: those in it, from the first on.
        exact: how many of them, from the first on, are as a prefill in one call would have made them.
        long: whether they were computed with the model's other rotary factors (see `Facts.long`).
        used: the number of the last job that ran in it; jobs are counted from 1.

    """

    capacity: int = 0
    tokens: list[int] = field(default_factory=list)
    exact: int = 0
    long: bool = False
    used: int = 0


class Choice(NamedTuple):
    """A slot by its index, and how many of the prompt's tokens to keep in it; None for a new cache."""

    slot: int
    keep: int | None


def choose(prompt: Sequence[int], need: int, idle: Sequence[Held], *, exact: bool, long: bool, count: int) -> Choice:
    """Choose the slot where the job costs least, now and later.

    A slot's cost is the tokens that have to be computed there, and the tokens that are lost there to later
    jobs; these count the less, the more jobs have come since the slot was used.

    Args:
        prompt: the job's tokens, at least one.
        need: how many tokens its cache must have room for.
        idle: the slots that are free, at least one.
        exact: whether the job may build on exact tokens only.
        long: whether it begins with the other rotary factors.
        count: the job's number.

    """

    def shared(held: Held) -> int:
        return common_prefix(prompt, held.tokens) if held.long == long else 0

    def kept(held: Held, common: int) -> int | None:
        if held.capacity < need or held.long != long:
            return None
        return _keep(min(common, held.exact) if exact else common, len(prompt))

    def cost(held: Held) -> tuple[float, bool]:
        common = shared(held)
        computed = len(prompt) - (kept(held, common) or 0)
        lost = (len(held.tokens) - common) / max(count - held.used, 1)
        # With nothing to lose either way, an outgrown cache is better replaced than left behind.
        return computed + lost, held.capacity == 0

    index = min(range(len(idle)), key=lambda index: cost(idle[index]))
    best = idle[index]
    return Choice(index, kept(best, shared(best)))


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _keep(common: int, prompt: int) -> int:
    """Return how many of ``common`` tokens to keep, so that at least two are computed, from a multiple on."""
    return max(min(common, prompt - 2), 0) // ALIGN * ALIGN


def slice_end(position: int, prompt: int, size: int) -> int:
    """Return where a slice of about ``size`` tokens from ``position`` ends.

    A rest of less than half a slice goes with it: each call reads all the weights once, whatever it computes.
    """
    end = max(position + size, position + ALIGN) // ALIGN * ALIGN
    return prompt if end >= prompt - max(size // 2, 1) else end


class Pace:
    """How many prompt tokens are computed in a given time.

    A slice's time is what a cancel, or another job's next token, has to wait for. While there is no other job
    it is half as long again, since each slice costs about 5 ms beyond its tokens (SmolLM2-135M, two cores).

    Args:
        slice_s: how long one slice should take beside other jobs, in seconds.

    """

    def __init__(self, slice_s: float = 0.1) -> None:
        self._slice_s = slice_s
        self._rate: float | None = None

    def __repr__(self) -> str:
        return f"<Pace {self._rate or 0:.0f} tokens/s, slices of {self.size(alone=False)}>"

    def size(self, *, alone: bool) -> int:
        """Return the tokens of the next slice; ``alone`` if no other job is there."""
        if self._rate is None:
            return _LEAST
        slice_s = self._slice_s * (1.5 if alone else 1)
        return max(_LEAST, min(int(self._rate * slice_s) // ALIGN * ALIGN, _MOST))

    def saw(self, tokens: int, seconds: float) -> None:
        """Take in a slice's time.

        A faster slice counts at once, since a short one looks slow for what each call costs beyond its tokens. A
        slower one counts half: attention slows down as prompts grow, but a busy machine is soon free again.
        """
        if tokens < _LEAST or seconds <= 0:
            return
        rate = tokens / seconds
        self._rate = rate if self._rate is None else max(rate, (self._rate + rate) / 2)
