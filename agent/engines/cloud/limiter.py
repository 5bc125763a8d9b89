"""How many requests are sent in a minute: a bound that the endpoint would else enforce by refusing."""

from collections import deque

# A second more than a minute: of two requests a minute apart, the later one may travel faster.
_WINDOW_S = 61.0


class Limiter:
    """At most so many requests in any minute, as a sliding window.

    A token bucket of that size would let through twice as many in the minute after a pause, and a smaller one hold up
    the burst that a saturated box is. Nobody says how the endpoints count; no way of counting finds more than this.

    Who waits has no place yet, and so has none to give back when it is canceled. Whoever asks in a loop under a lock
    gets its turn in order.

    Args:
        per_minute: how many.

    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._sent: deque[float] = deque()

    def __repr__(self) -> str:
        return f"<Limiter {len(self._sent)} of {self._per_minute} sent in the last minute>"

    def delay_s(self, now: float) -> float:
        """Return how long the limit would hold a request up, in seconds; ``now`` is the monotonic clock."""
        while self._sent and self._sent[0] + _WINDOW_S <= now:
            self._sent.popleft()
        return self._sent[0] + _WINDOW_S - now if len(self._sent) >= self._per_minute else 0.0

    def take(self, now: float) -> float:
        """Take a place and return 0.0; where there is none, return after how many seconds to ask again."""
        delay_s = self.delay_s(now)
        if delay_s == 0.0:
            self._sent.append(now)
        return delay_s
