"""Room on the disk that is given back when there is no other, so that jobs can end on a full disk."""

import contextlib
import os
from pathlib import Path

# What the jobs that are under way need to end, when the disk takes nothing else: the WAL grows to its 4 MiB until it
# is copied back, and the database by no more than these 4 MiB. A queue of 64 answers is 1 MiB of it.
SIZE = 8 << 20
# What is left of it to those jobs when refusals, which should be as lasting as any answer, have taken their part: some
# hundreds of them, one by one, or thousands at once.
FOR_JOBS = SIZE // 2
# It is given back a slice at a time: whoever has filled the disk takes a share of each.
_SLICE = 1 << 20


class Ballast:
    """A file of `SIZE` bytes that are really on the disk.

    Requests are taken on while it is whole, so that each finds room for its end. It lives from one run to the next.

    Args:
        path: of the file.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = _allocated(path)

    def whole(self) -> bool:
        """Tell whether all of it is there; if not, it is made again where there is room."""
        if self._size < SIZE:
            with contextlib.suppress(OSError):  # it is not whole, which is all that there is to say
                self._fill()
        return self._size >= SIZE

    def give(self, kept: int) -> bool:
        """Give a slice back to the disk; False if less than ``kept`` would be left, or the disk does not take that."""
        if self._size - _SLICE < kept:
            return False
        self._size -= _SLICE
        try:
            os.truncate(self._path, self._size)
        except OSError:
            self._size = _allocated(self._path)
            return False
        return True

    def _fill(self) -> None:
        disk = os.statvfs(self._path.parent)
        # What is missing, and as much as the whole besides: else it would take the last page itself, and be given
        # back and made again by turns.
        if disk.f_bavail * disk.f_frsize < 2 * SIZE - self._size:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE)
        except OSError:
            os.ftruncate(descriptor, self._size)  # half of it must not be what the disk lacks
            raise
        finally:
            os.close(descriptor)
        self._size = SIZE


def _allocated(path: Path) -> int:
    """Return how much of a file is on the disk from its start: none if it has holes."""
    with contextlib.suppress(OSError):
        found = path.stat()
        if found.st_blocks * 512 >= found.st_size:
            return found.st_size
    return 0
