"""Things in an order from which any can be taken out."""

import heapq
from typing import Generic, TypeVar

_T = TypeVar("_T")

# Entries of what is gone may stay in the heap up to as many as are there, and these: to sweep a heap of ten after
# every tenth change would cost more than it saves.
_STALE = 64


class Order(Generic[_T]):
    """Each thing once, the smallest mark first, and among equal marks what was put in first.

    Every operation costs O(log n), amortised: entries of what is gone are passed over, and swept out of the heap when
    they are more than what is there.
    """

    def __init__(self) -> None:
        self._entries: dict[_T, tuple[float, int, _T]] = {}
        self._heap: list[tuple[float, int, _T]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Order of {len(self)}, first mark {self.mark}>"

    @property
    def mark(self) -> float | None:
        """The smallest mark; None if nothing is there."""
        heap = self._heap
        while heap and self._entries.get(heap[0][2]) is not heap[0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def put(self, what: _T, mark: float) -> None:
        """Put a thing in at its mark, or move it there; at the mark that it has, it keeps its place among equals."""
        entry = self._entries.get(what)
        if entry is not None and entry[0] == mark:
            return
        self._serial += 1
        self._entries[what] = entry = (mark, self._serial, what)
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self) + _STALE:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def drop(self, what: _T) -> None:
        """Take a thing out, if it is in."""
        self._entries.pop(what, None)

    def first(self, limit: int) -> list[_T]:
        """Return the first ``limit`` in order, leaving them in."""
        heap = self._heap
        found: list[tuple[float, int, _T]] = []
        while heap and len(found) < limit:
            entry = heapq.heappop(heap)
            if self._entries.get(entry[2]) is entry:
                found.append(entry)
        for entry in found:
            heapq.heappush(heap, entry)
        return [what for _, _, what in found]

    def take(self, until: float, limit: int | None = None) -> list[_T]:
        """Take out what has a mark of at most ``until``, in order; ``limit`` of it, at the most."""
        found: list[_T] = []
        while len(found) != limit and (mark := self.mark) is not None and mark <= until:
            found.append(heapq.heappop(self._heap)[2])
            del self._entries[found[-1]]
        return found
