"""Copying a model out of a folder or an archive that was carried here, whoever packed it."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

from agent.models.catalogue import ModelError
from agent.models.installing import check_space
from agent.models.store import CONFIG, is_hidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.models.installing import Progress

_BLOCK = 1 << 20
_SPARE = 10_000_000
# What the libraries raise of an archive that is damaged, locked by a password, or none.
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of what was carried here."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def copied(source: Path, target: Path, name: str, store: Path, report: Progress) -> Path:
    """Copy the files of a folder or an archive below ``target``; return the one folder there that is a model.

    Files alone: a link, a device or a path that leads out of the archive ends it. Not by `tarfile`'s own filters, which
    Debian 12's Python 3.11.2 does not have.

    Raises:
        ModelError: it is no such thing, holds not exactly one model, or there is no room for it.

    """
    with ExitStack() as opened:
        members = _members(source, opened)
        total, done = sum(member.size for member in members), 0
        check_space(name, total + _SPARE, store)
        for member in members:
            path = target.joinpath(*_inside(member.name, source).parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as plain:
                plain.writelines(_blocks(member, source))
            done += member.size
            report("copying", done, total)
    found = [config.parent for config in target.rglob(CONFIG)]
    if len(found) == 1:
        return found[0]
    many = "no folder" if not found else f"{len(found)} folders"
    raise ModelError(f"{source} has {many} with a {CONFIG}: give one model at a time")


@contextmanager
def reading(source: Path) -> Iterator[None]:
    """Say what goes wrong with what is read, apart from what goes wrong with the store.

    Raises:
        ModelError: in place of what the file system or a library raised.

    """
    try:
        yield
    except FileNotFoundError as error:
        raise ModelError(f"there is no {error.filename or source}: correct the path") from error
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip's and bz2's own have none
            what = f"{error.filename or source} cannot be read ({error.strerror})"
            raise ModelError(f"{what}: correct its permissions, or copy it again") from error
        # tarfile adds a line for each form that it tried.
        why = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        what = f"{source} is no folder, .tar or .zip, or is damaged ({why})"
        raise ModelError(f"{what}: copy or pack it again") from error


def _blocks(member: _Member, source: Path) -> Iterator[bytes]:
    with reading(source), member.open() as packed:
        # To the empty block at the end, at which a .zip's checksum is looked at.
        while block := packed.read(_BLOCK):
            yield block


def _members(source: Path, opened: ExitStack) -> list[_Member]:
    with reading(source):
        if source.is_dir():
            return list(_in_folder(source))
        if zipfile.is_zipfile(source):
            return list(_in_zip(opened.enter_context(zipfile.ZipFile(source))))
        return list(_in_tar(opened.enter_context(tarfile.open(source)), source))


def _in_folder(folder: Path) -> Iterator[_Member]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not is_hidden(path.relative_to(folder)):
            yield _Member(path.relative_to(folder).as_posix(), path.stat().st_size, partial(_plain, path))


def _in_zip(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        if not info.is_dir():
            yield _Member(info.filename, info.file_size, partial(archive.open, info))


def _in_tar(archive: tarfile.TarFile, source: Path) -> Iterator[_Member]:
    members = archive.getmembers()
    # A compressed stream is told whole at its end alone; and where a header is damaged, tarfile takes it for the end.
    while rest := archive.fileobj.read(_BLOCK):
        if rest.strip(b"\0"):
            raise tarfile.ReadError("something follows its end")
    for info in members:
        if info.isdir():
            continue
        if not info.isreg():
            raise ModelError(f"{source} holds {info.name}, which is no plain file: pack the files themselves")
        yield _Member(info.name, info.size, partial(_opened, archive, info))


def _plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def _opened(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    assert file is not None  # noqa: S101  it is a plain file
    return file


def _inside(name: str, source: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ModelError(f"{source} holds {name}, which leads out of it: do not use that archive")
    return path
