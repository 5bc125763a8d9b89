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

    def delay_s(self, now: float, ahead: int = 0) -> float:
        """Return how long the limit would hold a request up that has so many ``ahead`` of it, in seconds.

        ``now`` is the monotonic clock.
        """
        while self._sent and self._sent[0] + _WINDOW_S <= now:
            self._sent.popleft()
        # Each goes a window after the one that has its place now; those ahead take the places that are free, and then
        # those that come free.
        windows, place = divmod(len(self._sent) + ahead - self._per_minute, self._per_minute)
        if windows < 0:
            return 0.0
        before = self._sent[place] if place < len(self._sent) else now
        return before + (windows + 1) * _WINDOW_S - now

    def take(self, now: float) -> float:
        """Take a place and return 0.0; where there is none, return after how many seconds to ask again."""
        delay_s = self.delay_s(now)
        if delay_s == 0.0:
            self._sent.append(now)
        return delay_s
