"""Putting a model into the store: one at a time, made beside its place, and given its name in one step.

The lock is the store's and not the machine's: a lock for the whole machine would be a file that every user can write
and nobody may trust. What two at a time would break is in the store, the downloads that they go on with. Only the free
disk may be counted on twice, by pulls into two stores of one disk: then the later one finds it full on its way.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent.durable import synced
from agent.models.catalogue import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Progress = Callable[[str, int, int | None], None]
"""Called with a stage (`waiting`, `downloading`, `copying`, `unpacking`, `converting`, `checking`), how much of it is
done, and how much there is, if that is known. Bytes, but for `converting`, which counts steps."""

CACHE = ".cache"
"""Downloads, inside the store. They stay until they are installed; a wheel stays after it, too, for repairs."""

SCRATCH = ".pulling"
"""What is half made, inside the store so that the last step is a rename. One, as there is one pull at a time."""

_REPLACED = "replaced"
"""In there, the model that another is taking the place of, by its name in the store."""


@contextmanager
def alone(store: Path, name: str, report: Progress) -> Iterator[Path]:
    """Have the store for oneself, and a scratch folder in it, which is gone at the end. Waits for who has it now.

    Puts a model back that was taken out of its place and not replaced, because the power went.

    Args:
        store: the folder of installed models; made if it is not there.
        name: the model's, for what is said about it.
        report: is told if it has to wait.

    Raises:
        ModelError: the disk is full, or may not be written.

    """
    scratch = store / SCRATCH
    try:
        store.mkdir(parents=True, exist_ok=True)
        with (store / ".lock").open("w") as lock:
            _take(lock.fileno(), report)
            # What a pull left that was killed.
            _clear(scratch)
            scratch.mkdir()
            try:
                yield scratch
            finally:
                _clear(scratch)
    except OSError as error:
        raise ModelError(_sentence(name, store, error)) from error


def install(model: Path, place: Path, scratch: Path) -> None:
    """Give a finished model, on disk for good, its place in the store."""
    # A folder cannot be renamed over one that is not empty. Between the two renames the store has no such model: who
    # has the store next puts the old one back. To exchange them in one step, not every file system of a card knows.
    if place.exists():
        (scratch / _REPLACED).mkdir()
        place.replace(scratch / _REPLACED / place.name)
    model.replace(place)
    synced(place.parent)


def _clear(scratch: Path) -> None:
    for model in (scratch / _REPLACED).glob("*"):
        if not (place := scratch.parent / model.name).exists():
            model.replace(place)
    shutil.rmtree(scratch, ignore_errors=True)


def check_space(name: str, needed: int, store: Path) -> None:
    """Refuse what the disk has no room for.

    Raises:
        ModelError: with how much is missing.

    """
    free = shutil.disk_usage(store).free
    if free < needed:
        raise ModelError(
            f"{name} takes {needed / 1e6:,.0f} MB more of the disk of {store}, which has {free / 1e6:,.0f} MB free: "
            f"free {(needed - free) / 1e6:,.0f} MB, or choose another folder"
        )


def _take(lock: int, report: Progress) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        report("waiting", 0, None)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _sentence(name: str, store: Path, error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"the disk of {store} became full while {name} was made: free some space and try again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            place = error.filename or store
            return f"{place} cannot be written ({error.strerror}): run as the owner of {store} or choose another folder"
        case _:
            return f"{name} could not be installed in {store} ({error}): put that right and try again"
