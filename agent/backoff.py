"""How long to wait before the next try."""

from collections.abc import Callable


class Backoff:
    """Exponential delays with full jitter, so that a fleet does not come back all at once.

    Args:
        first_s: ceiling of the first delay, in seconds; it doubles with every further one.
        most_s: what the ceiling never passes.
        random: returns a number in [0, 1), such as `random.random`.

    See https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ for why full jitter.

    """

    def __init__(self, first_s: float, most_s: float, random: Callable[[], float]) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._random = random
        self._ceiling_s = first_s

    def __repr__(self) -> str:
        return f"<Backoff up to {self._ceiling_s:g} s next>"

    def next(self) -> float:
        """Return the next delay, in seconds."""
        delay_s = self._random() * self._ceiling_s
        self._ceiling_s = min(self._most_s, 2 * self._ceiling_s)
        return delay_s

    def reset(self) -> None:
        """Start over: what was tried has worked."""
        self._ceiling_s = self._first_s
