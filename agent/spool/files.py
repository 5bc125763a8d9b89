"""The files around the database: its lock, and the damaged ones that were set aside."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from agent.spool.records import SpoolError
from agent.spool.sickness import refused

# Of each a person may want a look, or a second try with better tools; but an SD card is small.
_KEPT = 3
# What belongs to a database. The WAL is renamed first: left behind, it would be read into whatever has the name next.
_SUFFIXES = ("-wal", "-shm", "-journal", "")
# SQLite's own page size, since 2016.
_PAGE = 4096


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Make the spool's folder (mode 0700) if need be, and keep other agents away from the spool.

    A lock of our own, as SQLite's lasts only as long as a connection, and a file that is mended gets another one.
    """
    with contextlib.ExitStack() as held:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(lock, 20).decode("ascii", "replace") or "unknown"
            raise SpoolError(f"another edge-slm holds {path} (pid {pid}): stop it, or set another state_dir") from error
        except OSError as error:
            advice = f"cannot write in {path.parent} ({error.strerror}): make it writable, or set another state_dir"
            raise refused(error, advice) from error
        # The pid is for that sentence alone, so a full disk may keep it out.
        with contextlib.suppress(OSError):
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
        yield


def make(path: Path) -> bool:
    """Make a database's file if need be, and tell whether it was emptied: it has nothing in it, but its WAL has.

    SQLite takes such a file for a new one, and deletes the WAL. With one page of zeros it is a damaged one, of which
    all that the WAL holds can be read.
    """
    # Made here and not by SQLite, which would let others read the prompts in it.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        wal = path.with_name(path.name + "-wal")
        emptied = not os.fstat(descriptor).st_size and wal.exists() and wal.stat().st_size > 0
        if emptied:
            os.ftruncate(descriptor, _PAGE)
    finally:
        os.close(descriptor)
    return emptied


def set_aside(path: Path) -> Path:
    """Give a damaged database a name with the time in it, and return that; the oldest such file but a few goes."""
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(aside.with_name(aside.name + suffix))
    # A clock that is behind gives the latest the lowest name.
    for old in [each for each in _set_aside(path) if each != aside][: 1 - _KEPT]:
        remove(old)
    return aside


def remove_oldest_aside(path: Path) -> bool:
    """Remove the oldest database that was set aside; False if there is none, or the disk does not let it go."""
    for old in _set_aside(path)[:1]:
        with contextlib.suppress(OSError):
            remove(old)
            return True
    return False


def _set_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.damaged-*T{'[0-9]' * 6}"))


def remove(path: Path) -> None:
    """Remove a database, if it is there."""
    for suffix in _SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
