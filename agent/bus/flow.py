"""Bounds on what is held in memory, in both directions."""

from collections.abc import Callable
from threading import Lock

# Read from the broker and not yet acknowledged by us. 32 MiB are four of the largest frames accepted by default;
# a box with 1 GiB can spare it. A message weighs at least 32 KiB, so that 1,024 small ones fill it as well: about
# a second of work for a spool that commits each by itself on a slow SD card.
INBOUND_HIGH = 32 << 20
LIGHTEST = 32 << 10


class Watermarks:
    """A level that is `over` from the moment it passes ``high`` until it is back at ``low``."""

    def __init__(self, high: int, low: int) -> None:
        self._high = high
        self._low = low
        self.level = 0
        self.over = False

    def __repr__(self) -> str:
        return f"<Watermarks {self.level:,} of {self._high:,}{' over' if self.over else ''}>"

    def add(self, amount: int) -> None:
        """Raise the level."""
        self.level += amount
        if self.level > self._high:
            self.over = True

    def remove(self, amount: int) -> None:
        """Lower the level."""
        self.level -= amount
        if self.level <= self._low:
            self.over = False


class Inflow:
    """Weighs what came in and is not acknowledged, over all connections of a session.

    The network thread adds, the event loop removes. It spans connections because the memory does: with a
    fresh bound for each, a stuck disk and a flapping link would fill the box.

    Args:
        room_made: called by a `remove` that ends `over`, on its thread.

    """

    def __init__(self, room_made: Callable[[], None]) -> None:
        self._room_made = room_made
        self._marks = Watermarks(INBOUND_HIGH, INBOUND_HIGH // 2)
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<Inflow {self._marks!r}>"

    @property
    def over(self) -> bool:
        """Whether nothing more should be read."""
        return self._marks.over

    def add(self, size: int) -> int:
        """Count a message of ``size`` bytes in; return its weight, which `remove` wants back."""
        weight = max(size, LIGHTEST)
        with self._lock:
            self._marks.add(weight)
        return weight

    def remove(self, weight: int) -> None:
        """Count a message out."""
        with self._lock:
            was_over = self._marks.over
            self._marks.remove(weight)
            makes_room = was_over and not self._marks.over
        if makes_room:
            self._room_made()
