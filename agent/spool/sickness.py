"""What a disk or a file can have, told apart by what helps against it, and said in a sentence."""

import errno
import sqlite3
from pathlib import Path
from typing import Any

from agent.spool.records import SpoolError, SpoolSick

# The disk's own trouble, and not a wrong owner or path: it passes, or somebody changes the card.
_SICK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


class DamagedError(sqlite3.DatabaseError):
    """The file, or a row, is not made of what it should be."""


class UnreadableError(Exception):
    """The disk did not let a ``table`` be read, which may pass."""

    def __init__(self, table: str, error: sqlite3.Error) -> None:
        super().__init__(f"the disk fails while {table} is read ({error})")
        self.table = table


Kinds = type | tuple[type, ...]
_Row = tuple[Any, ...]


def checked(row: _Row, *kinds: Kinds) -> _Row:
    """Return a row, or raise `DamagedError` if it is of other kinds: SQLite keeps a text in a column of numbers."""
    for value, kind in zip(row, kinds, strict=True):
        if not isinstance(value, kind):
            # Which value stays untold: it may be of a prompt.
            raise DamagedError(f"a row has a {type(value).__name__} where it cannot be")
    return row


def is_damage(error: BaseException) -> bool:
    """Whether what is in the file makes no sense, so that it is to be mended.

    Text that is no UTF-8 is an error of Python's, without a code of SQLite's.
    """
    if isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode"):
        return True
    return isinstance(error, DamagedError) or _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def wants_room(error: BaseException) -> bool:
    """Whether room on the disk may help. A quota that is used up is an I/O error to SQLite."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def passes(error: BaseException) -> bool:
    """Whether it is no damage at all, and what could not be read now can be read later."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN)


def is_io_error(error: BaseException) -> bool:
    """Whether the disk did not do what it was asked; of a read, whether that is damage shows when it is asked again."""
    return _code(error) == sqlite3.SQLITE_IOERR


def explained(error: sqlite3.Error, path: Path) -> SpoolError:
    """Say what to do about an error of SQLite."""
    match _code(error):
        case sqlite3.SQLITE_FULL:
            return SpoolSick(f"no space left for {path}: free some on its disk")
        case sqlite3.SQLITE_IOERR:
            return SpoolSick(f"the disk under {path} fails ({error}): check its space, quota and health")
        case sqlite3.SQLITE_READONLY:
            return SpoolSick(f"the disk under {path} became read-only ({error}): check its health, and mount it again")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return SpoolError(f"cannot write {path} ({error}): check who owns it")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return SpoolError(f"another program has locked {path}: close it")
        case _:
            return SpoolError(f"{path} cannot be used ({error})")


def refused(error: OSError, sentence: str) -> SpoolError:
    """Make an error of the file system one of ours; ``sentence`` says what to do if the disk is not at fault."""
    if error.errno in _SICK:
        return SpoolSick(
            f"{error.filename or 'the disk'}: {error.strerror}: free some space on that disk, or replace it"
        )
    return SpoolError(sentence)


def _code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
