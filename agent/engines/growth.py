"""When a worker's memory has grown so far that it is replaced: a decision on plain state."""

from pathlib import Path

from agent.kernel_files import total_bytes

# Of the box's memory. A leak is a trouble as far as it takes what others need: 256 MB on a Raspberry Pi of 1 GB, 16 GB
# on a Jetson of 64. What a model needs besides its caches stays well below: SmolLM2-135M grew by 2 MB while its jobs
# made 270 MB of caches, the vision test model by 15 MB over pictures at all details.
_SHARE = 4
# A worker lives at least so many times as long as its load took. However fast it leaks, and even where the mark is
# below what the model needs, a tenth of the time at most goes into loading.
_LIFE = 10


def default_allowance(root: Path = Path("/")) -> int:
    """Return how far a worker may grow here, in bytes.

    In a container, or under systemd's ``MemoryMax``, what these leave counts, since the worker is ended beyond it.
    """
    return total_bytes(root) // _SHARE


class Growth:
    """A worker's memory beyond what it had when its model was loaded, and beyond its KV caches.

    Args:
        allowance: how far it may grow, in bytes.
        loaded: its private memory after the load, in bytes.
        load_s: how long the load took.
        now: the monotonic clock, in seconds; here as below.

    """

    def __init__(self, allowance: int, loaded: int, load_s: float, now: float) -> None:
        self._allowance = allowance
        self._loaded = loaded
        self._may_end_at = now + _LIFE * load_s
        self.bytes = 0

    def __repr__(self) -> str:
        return f"<Growth {self.bytes >> 20} of {self._allowance >> 20} MiB>"

    def exceeds(self, private: int, cached: int, now: float) -> bool:
        """Decide whether the worker is to be replaced, by its memory now and its KV caches' part of it, in bytes."""
        self.bytes = private - self._loaded - cached
        return self.bytes > self._allowance and now >= self._may_end_at
