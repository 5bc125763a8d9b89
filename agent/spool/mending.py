"""A damaged spool is replaced by a new one, with everything in it that can be read.

A power cut finds a whole story on the disk at any time: the new file is built beside the old one as ``.mending``,
is called ``.mended`` once it is complete, then the old one is set aside, and last the new one takes its place.
Whoever opens a spool and finds a ``.mended`` goes on from there.
"""

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import structlog

from agent.spool import schema
from agent.spool.files import remove, set_aside, synced
from agent.spool.sickness import passes

_log = structlog.get_logger(__name__)

# Rows looked for in vain, one by one, before the search ends. Numbers are given out one after the other, and a page
# that leads to others leads to some thousand rows.
_GAP = 10_000
# What a row must be made of, or it is damaged itself.
_COLUMNS: dict[str, dict[str, type | tuple[type, ...]]] = {
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
    },
    "outbox": {"seq": int, "final": int},
}

_Row = tuple[Any, ...]


def mend(path: Path, why: str, next_unsent: int) -> None:
    """Put a new database at ``path``, with all rows of the damaged one that can be read.

    Args:
        path: of the damaged one, which nobody has open.
        why: for the log.
        next_unsent: a final that gets a new place in the outbox gets none before this.

    Raises:
        sqlite3.Error, OSError: the disk does not let it be; the damaged one is where it was.

    """
    mending, mended = _beside(path)
    remove(mending)
    os.close(os.open(mending, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with contextlib.closing(_reader(path)) as damaged, contextlib.closing(_new(mending)) as new:
        new.execute("BEGIN")
        carried = _carry_over(damaged, new, next_unsent)
        new.execute("COMMIT")
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


def _carry_over(damaged: sqlite3.Connection, new: sqlite3.Connection, next_unsent: int) -> dict[str, int]:
    """Copy the rows, and return how many of what there were."""
    _, finals = _copied(damaged, new, "finals", "TRUE")
    # A key that has both is finished.
    _, requests = _copied(damaged, new, "requests", "(?2, ?3) NOT IN (SELECT client, id FROM finals)")
    outbox_whole, outbox = _copied(damaged, new, "outbox", "?2 IN (SELECT seq FROM finals)")
    again = 0
    if not outbox_whole:
        # Nobody knows any more which of the finals are sent: they may arrive twice, but not never.
        again = new.execute(
            "INSERT INTO outbox (seq, final) SELECT row_number() OVER (ORDER BY seq) - 1"
            " + max(?, (SELECT coalesce(max(seq), 0) + 1 FROM outbox)), seq"
            " FROM finals WHERE seq NOT IN (SELECT final FROM outbox)",
            (next_unsent,),
        ).rowcount
    reading = _Reading(damaged)
    for way in ("", "DESC"):
        for name, policy in reading.rows(f"SELECT name, policy FROM cameras ORDER BY name {way}"):  # noqa: S608
            if isinstance(name, str) and isinstance(policy, bytes):
                new.execute("INSERT OR IGNORE INTO cameras VALUES (?, ?)", (name, policy))
    for (shift,) in reading.rows("SELECT shift FROM clock LIMIT 1"):
        if isinstance(shift, float):
            new.execute("UPDATE clock SET shift = ?", (shift,))
    return {"requests": requests, "finals": finals, "unsent": outbox + again, "sent_again": again}


def _copied(damaged: sqlite3.Connection, new: sqlite3.Connection, table: str, fits: str) -> tuple[bool, int]:
    """Copy the rows of a table that fit, and tell whether it was whole, and how many there were."""
    columns = _COLUMNS[table]
    places = ", ".join(f"?{number}" for number in range(1, len(columns) + 1))
    insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) SELECT {places} WHERE {fits}"
    reading, sound, copied = _Reading(damaged), True, 0
    for row in reading.walk(table, columns):
        if all(isinstance(value, kind) for value, kind in zip(row, columns.values(), strict=True)):
            copied += new.execute(insert, row).rowcount
        else:
            sound = False
    return reading.whole and sound, copied


class _Reading:
    """What can be read of a damaged database; ``whole`` while nothing was missed."""

    def __init__(self, damaged: sqlite3.Connection) -> None:
        self._damaged = damaged
        self.whole = True

    def rows(self, query: str, *values: int) -> Iterator[_Row]:
        """Yield rows up to the first damage."""
        try:
            yield from self._damaged.execute(query, values)
        except sqlite3.Error as error:
            if passes(error):
                raise
            self.whole = False

    def walk(self, table: str, columns: Iterable[str]) -> Iterator[_Row]:
        """Yield rows from both ends of a table up to where it is damaged, and one by one from in between."""
        select = f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED"  # noqa: S608
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
        missed = 0
        for seq in range(low + 1, high):
            found = list(self.rows(f"{select} WHERE seq = ?", seq))
            yield from found
            missed = 0 if found else missed + 1
            if missed > _GAP:
                break
