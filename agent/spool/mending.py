"""A damaged spool is replaced by a new one, with everything in it that can be read.

A power cut finds a whole story on the disk at any time: the new file is built beside the old one as ``.mending``,
is called ``.mended`` once it is complete, then the old one is set aside, and last the new one takes its place.
Whoever opens a spool and finds a ``.mended`` goes on from there.
"""

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import structlog

from agent.durable import synced
from agent.spool import schema
from agent.spool.files import remove, set_aside
from agent.spool.sickness import DamagedError, Kinds, UnreadableError, checked, is_io_error, passes

_log = structlog.get_logger(__name__)

# Rows looked for in vain, one by one, before the search ends. Numbers are given out one after the other, and a page
# that leads to others leads to some thousand rows.
_GAP = 10_000
# What a row must be made of, or it is damaged itself.
_COLUMNS: dict[str, dict[str, Kinds]] = {
    "finals": {
        "seq": int,
        "client": str,
        "id": str,
        "finished_at": float,
        "topic": str,
        "correlation": (bytes, type(None)),
        "payload": bytes,
        "repeatable": int,
    },
    "requests": {
        "seq": int,
        "client": str,
        "id": str,
        "received_at": float,
        "attempt": int,
        "canceled": int,
        "job": bytes,
        "egress": int,
    },
    "outbox": {"seq": int, "final": int},
}
# The same of those without numbers: they are small, and found from both ends.
_NAMED: dict[str, dict[str, Kinds]] = {
    "cameras": {"name": str, "policy": bytes},
    "spending": {"period": str, "payer": str, "requests": int, "tokens": int, "money": float},
    "rates": {"name": str, "value": bytes},
}
# What else names the rows of a table: its indexes, by the column that they begin with, are pages of their own.
_INDEXES = {
    "finals": {"finals_by_age": "finished_at", "sqlite_autoindex_finals_1": "client"},
    "requests": {"sqlite_autoindex_requests_1": "client"},
    "outbox": {"sqlite_autoindex_outbox_1": "final"},
}

_Row = tuple[Any, ...]
_NOTHING = object()


def mend(path: Path, why: str, next_unsent: int, given_up: Collection[str] = ()) -> None:
    """Put a new database at ``path``, with all rows of the damaged one that can be read.

    Args:
        path: of the damaged one, which nobody has open.
        why: for the log.
        next_unsent: a final that gets a new place in the outbox gets none before this.
        given_up: tables that the disk could not read before: what it cannot read of them now is lost.

    Raises:
        UnreadableError: the disk could not read a table.
        sqlite3.Error, OSError, MemoryError: it cannot be done now.
            In every case the damaged one is where it was.

    """
    mending, mended = _beside(path)
    remove(mending)
    try:
        os.close(os.open(mending, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with contextlib.closing(_reader(path)) as damaged, contextlib.closing(_new(mending)) as new:
            new.execute("BEGIN")
            carried = _carry_over(damaged, new, next_unsent, given_up)
            new.execute("COMMIT")
    except BaseException:
        # Else it would be half a spool that keeps the disk full until the next try.
        with contextlib.suppress(OSError):
            remove(mending)
        raise
    mending.replace(mended)
    _log.error("spool.damaged", path=str(path), why=why, **carried)
    go_on(path)


def go_on(path: Path) -> None:
    """Let a database that was mended take the damaged one's place, if that is still to be done."""
    _, mended = _beside(path)
    if mended.exists():
        synced(path.parent)
        aside = set_aside(path)
        mended.replace(path)
        synced(path.parent)
        _log.error("spool.mended", path=str(path), damaged_one=str(aside))


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".mending"), path.with_name(path.name + ".mended")


def _reader(path: Path) -> sqlite3.Connection:
    """Open a database for what can be read of it; its WAL counts."""
    connection = sqlite3.connect(path, isolation_level=None)
    # Damaged text is no reason to lose the row's neighbours.
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    # Of a file that is shorter than it says SQLite reads nothing, but with a writable schema.
    for pragma in ("locking_mode = EXCLUSIVE", "writable_schema = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _new(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    # Until it is complete it is worth nothing, and so no journal: it is one file, written once.
    connection.execute("PRAGMA journal_mode = OFF")
    schema.make_tables(connection)
    return connection


def _carry_over(
    damaged: sqlite3.Connection, new: sqlite3.Connection, next_unsent: int, given_up: Collection[str]
) -> dict[str, int]:
    """Copy the rows, and return how many of what there were."""
    clock, finals, requests, outbox = (
        _Reading(damaged, table, given_up) for table in ("clock", "finals", "requests", "outbox")
    )
    for table in _NAMED:
        _copied_by_name(_Reading(damaged, table, given_up), new)
    shift = None
    for row in clock.rows("SELECT shift FROM clock LIMIT 1"):
        with contextlib.suppress(DamagedError):
            (shift,) = checked(row, float)
            new.execute("UPDATE clock SET shift = ?", row)
    # As if it had just come or ended, which for one may be late, but is never too early.
    now = time.time() - (shift or 0.0)
    kept = _copied(finals, new, "TRUE", {"finished_at": now, "correlation": None, "repeatable": 1})
    # A key that has both is finished. Of a job that cannot be read the key is answered all the same. Whether bytes of
    # it left is answered with yes where nobody knows: that they did not is a promise.
    unfinished = {"received_at": now, "attempt": 1, "canceled": 0, "job": b"", "egress": 1}
    waiting = _copied(requests, new, "(?2, ?3) NOT IN (SELECT client, id FROM finals)", unfinished)
    unsent = _copied(outbox, new, "?2 IN (SELECT seq FROM finals)", {})
    if shift is None:
        # The stamps may be off by decades, and all jobs too late.
        new.execute("UPDATE finals SET finished_at = ?", (now,))
        new.execute("UPDATE requests SET received_at = ?", (now,))
    again = 0
    if not outbox.whole:
        # Nobody knows any more which of the finals are sent: they may arrive twice, but not never.
        again = new.execute(
            "INSERT INTO outbox (seq, final) SELECT row_number() OVER (ORDER BY seq) - 1"
            " + max(?, (SELECT coalesce(max(seq), 0) + 1 FROM outbox)), seq"
            " FROM finals WHERE seq NOT IN (SELECT final FROM outbox)",
            (next_unsent,),
        ).rowcount
    return {"requests": waiting, "finals": kept, "unsent": unsent + again, "sent_again": again}


def _copied_by_name(reading: "_Reading", new: sqlite3.Connection) -> None:
    """Copy the rows of a table without numbers; what of it cannot be read is told, spent or measured again."""
    columns = _NAMED[reading.table]
    insert = f"INSERT OR IGNORE INTO {reading.table} VALUES ({', '.join('?' * len(columns))})"  # noqa: S608
    for way in ("", "DESC"):
        for row in reading.rows(f"SELECT {', '.join(columns)} FROM {reading.table} ORDER BY 1 {way}"):  # noqa: S608
            with contextlib.suppress(DamagedError):
                new.execute(insert, checked(row, *columns.values()))


def _copied(reading: "_Reading", new: sqlite3.Connection, fits: str, defaults: dict[str, Any]) -> int:
    """Copy the rows of a table that fit; ``defaults`` stand for values that make no sense. Return how many it were."""
    columns = _COLUMNS[reading.table]
    places = ", ".join(f"?{number}" for number in range(1, len(columns) + 1))
    insert = f"INSERT OR IGNORE INTO {reading.table} ({', '.join(columns)}) SELECT {places} WHERE {fits}"
    copied, lost = 0, 0
    for row in reading.walk(columns):
        values = [
            value if isinstance(value, kind) else defaults.get(name, _NOTHING)
            for value, (name, kind) in zip(row, columns.items(), strict=True)
        ]
        if _NOTHING in values:
            lost += 1
            # Not its key, which may be rubbish of any size: by its number it is found in the file that is set aside.
            _log.error("spool.row_lost", table=reading.table, seq=row[0])
        else:
            copied += new.execute(insert, values).rowcount
    reading.whole &= not lost
    return copied


class _Reading:
    """What can be read of a damaged ``table``; ``whole`` while nothing was missed."""

    def __init__(self, damaged: sqlite3.Connection, table: str, given_up: Collection[str]) -> None:
        self.table = table
        self.whole = True
        self._damaged = damaged
        self._given_up = table in given_up

    def rows(self, query: str, *values: int) -> Iterator[_Row]:
        """Yield rows up to the first damage."""
        try:
            yield from self._damaged.execute(query, values)
        except sqlite3.Error as error:
            if passes(error):
                raise
            if is_io_error(error) and not self._given_up:
                raise UnreadableError(self.table, error) from error
            self.whole = False

    def walk(self, columns: Iterable[str]) -> Iterator[_Row]:
        """Yield rows from both ends of the table up to where it is damaged, and one by one from in between."""
        there = {name for _, name, *_ in self.rows(f"PRAGMA table_info({self.table})")}
        # What an older version had no column for was not so.
        values = ("0" if name == "egress" and name not in there else name for name in columns)
        select = f"SELECT {', '.join(values)} FROM {self.table} NOT INDEXED"  # noqa: S608
        low, high, again = 0, sys.maxsize, 0
        for row in self.rows(f"{select} ORDER BY seq"):
            if row[0] > low:
                low = row[0]
            else:
                # Branches of the tree are confused, and could lead in a circle.
                self.whole = False
                again += 1
                if again > _GAP:
                    break
            yield row
        if self.whole:
            return
        for row in self.rows(f"{select} ORDER BY seq DESC"):
            if not low < row[0] < high:
                break
            high = row[0]
            yield row
        yield from self._between(select, low, high)

    def _between(self, select: str, low: int, high: int) -> Iterator[_Row]:
        for seq in self._named():
            if isinstance(seq, int) and low < seq < high:
                yield from self.rows(f"{select} WHERE seq = ?", seq)
        missed = 0
        for seq in range(low + 1, high):
            found = list(self.rows(f"{select} WHERE seq = ?", seq))
            yield from found
            missed = 0 if found else missed + 1
            if missed > _GAP:
                break

    def _named(self) -> Iterator[Any]:
        """Yield the numbers of rows that something outside the table names; some twice."""
        for way in ("", "DESC"):
            for index, column in _INDEXES[self.table].items():
                query = f"SELECT seq FROM {self.table} INDEXED BY {index} ORDER BY {column} {way}"  # noqa: S608
                yield from (seq for (seq,) in self.rows(query))
            if self.table == "finals":
                query = f"SELECT final FROM outbox NOT INDEXED ORDER BY seq {way}"  # noqa: S608
                yield from (seq for (seq,) in self.rows(query))
