"""The spool's tables and the SQL on them. Everything here runs in the writer thread, inside its transactions."""

import contextlib
import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from agent.contract.jobs import Job, Key
from agent.spool.files import make
from agent.spool.notes import Notes
from agent.spool.records import Receipt, Room, SpoolFull, StoredFinal, Total, Unfinished, Unsent
from agent.spool.schema import VERSION, prepare
from agent.spool.sickness import DamagedError, checked, refused

# Finals dropped in one operation, so that no accept waits behind a day's worth of them.
_EXPIRED_AT_ONCE = 256
# The share of the bytes that there may be from which on sent finals are dropped early: before any request is refused.
_CROWDED = 0.9
_ROOMY = 0.5
# For another program that has the file open: somebody who looks into it, and is gone soon.
_BUSY_S = 5.0
# Rows stamped so near to the time at which a jump of the clock was noticed were stamped since it. Whoever watches the
# clock looks more often; and a jump that is smaller than this is not worth telling apart.
_NOTICED_S = 10.0


class Counts(NamedTuple):
    """How many requests have no final, and how many finals the broker does not have."""

    unfinished: int
    unsent: int


class Database:
    """The open tables.

    Attributes:
        notes: the tables of what is no job's.
        counts: what the tables hold, kept in step so that nobody has to count rows.
        next_unsent: the number that the next row of the outbox gets.
        live_bytes: what the file held when the last transaction began, less the pages of what was deleted, which
            are used again.

    Raises:
        sqlite3.Error: the file is damaged, or its disk fails.
        SchemaError: it is a database of somebody else, or of a newer version.
        SpoolError: it cannot be opened.

    """

    def __init__(self, path: Path, room: Room, next_unsent: int = 1) -> None:
        self._durable: bool | None = None
        self._room = room
        self._droppable = True
        self.live_bytes = 0
        try:
            emptied = make(path)
        except OSError as error:
            raise refused(error, f"cannot open {path} ({error}): check what it is and who owns it") from error
        if emptied:
            raise DamagedError("it is empty, and its WAL is not")
        self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        # The connection keeps every statement below prepared: they are fewer than its cache of 128.
        self._execute = self._connection.execute
        self.notes = Notes(self._execute)
        try:
            prepare(self._connection)
            self.counts = Counts(
                self._number("SELECT count(*) FROM requests"), self._number("SELECT count(*) FROM outbox")
            )
            self.next_unsent = max(next_unsent, self._number("SELECT coalesce(max(seq), 0) + 1 FROM outbox"))
            (self._shift,) = checked(self._execute("SELECT coalesce(max(shift), 0.0) FROM clock").fetchone(), float)
            self._page = self._number("PRAGMA page_size")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file; what is committed is there."""
        self._connection.close()

    def transact(self, work: Callable[[], object], *, durable: bool) -> None:
        """Do ``work`` in one transaction, or nothing of it; ``durable`` against power loss, too, on return.

        Without fsync a commit is still whole or not at all, and the next durable one makes it durable as well.
        """
        if durable is not self._durable:
            self._execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        before = self.counts, self._shift
        try:
            self._execute("BEGIN")
            self.live_bytes = (self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")) * self._page
            work()
            self._execute("COMMIT")
        except BaseException:
            self.counts, self._shift = before
            # SQLite has rolled back by itself after some errors; after others, a second one changes nothing.
            with contextlib.suppress(sqlite3.Error):
                self._execute("ROLLBACK")
            raise

    def probe(self) -> None:
        """Write something that changes nothing, to see whether the disk takes it."""
        # A row that is written as it was is not written at all; this is.
        self._execute(f"PRAGMA user_version = {VERSION}")

    @property
    def crowded(self) -> bool:
        """Whether there is hardly any room left."""
        return self.live_bytes >= self._room.bytes * _CROWDED

    @property
    def roomy(self) -> bool:
        """Whether so much is free that the next time that there is hardly any room is another time."""
        return self.live_bytes < self._room.bytes * _ROOMY

    def drop_early(self) -> int:
        """Drop some of the oldest finals that are sent, however young; return how many."""
        if not self._droppable:
            return 0
        dropped = self.expire(math.inf)
        # Until another one is sent, nobody looks through all those that are not.
        self._droppable = dropped > 0
        return dropped

    def recover(self) -> list[Unfinished]:
        """Count one attempt for every request, and return them in order of acceptance."""
        self._execute("UPDATE requests SET attempt = attempt + 1")
        select = "SELECT client, id, job, received_at, attempt, canceled, egress FROM requests ORDER BY seq"
        # Closed even if a row makes no sense: an open cursor keeps the lock, and the file could not be mended.
        with contextlib.closing(self._execute(select)) as rows:
            return [
                Unfinished(Key(client, job_id), _readable(job), at + self._shift, attempt, bool(canceled), bool(egress))
                for client, job_id, job, at, attempt, canceled, egress in (
                    checked(row, str, str, bytes, float, int, int, int) for row in rows
                )
            ]

    def accept(self, key: Key, job: bytes, received_at: float) -> Receipt | SpoolFull:
        """Keep a request, unless its key is known, or there is no room for another.

        That is returned, and not raised, which would undo what the others in the transaction did.
        """
        if self._send_again(key):
            return Receipt.FINISHED
        no_room = self._no_room()
        if no_room is not None:
            return Receipt.RUNNING if self._unfinished(key) else no_room
        added = self._execute(
            "INSERT INTO requests (client, id, received_at, attempt, canceled, job) VALUES (?, ?, ?, 1, 0, ?)"
            " ON CONFLICT DO NOTHING",
            (*key, received_at - self._shift, job),
        ).rowcount
        self._count(unfinished=added)
        return Receipt.NEW if added else Receipt.RUNNING

    def restarted(self, key: Key, attempt: int) -> None:
        """Let a request be in its ``attempt``-th attempt."""
        self._execute("UPDATE requests SET attempt = ? WHERE client = ? AND id = ?", (attempt, *key))

    def cancel(self, key: Key) -> Receipt:
        """Mark a request as canceled."""
        if self._execute("UPDATE requests SET canceled = 1 WHERE client = ? AND id = ?", key).rowcount:
            return Receipt.RUNNING
        return Receipt.FINISHED if self._send_again(key) else Receipt.NEW

    def leave(self, key: Key, totals: Iterable[Total]) -> None:
        """Mark a request as one of which bytes have left the box, and keep what that makes in all."""
        self._execute("UPDATE requests SET egress = 1 WHERE client = ? AND id = ?", key)
        self.notes.spend(totals)

    def finish(self, final: StoredFinal) -> bool:
        """Let a final take its request's place, and wait to be sent; False if the key has one already."""
        removed = self._execute("DELETE FROM requests WHERE client = ? AND id = ?", final.key).rowcount
        stored = self._execute(
            "INSERT INTO finals (client, id, finished_at, topic, correlation, payload, repeatable)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                *final.key,
                final.finished_at - self._shift,
                final.topic,
                final.correlation,
                final.payload,
                final.repeatable,
            ),
        )
        self._count(unfinished=-removed)
        if not stored.rowcount:
            return False
        self._post(stored.lastrowid)
        return True

    def refuse(self, final: StoredFinal) -> Receipt | SpoolFull:
        """Store the final of what never was a request, unless its key is known, or there is no room, as `accept`."""
        if self._unfinished(final.key):
            return Receipt.RUNNING
        if self._send_again(final.key):
            return Receipt.FINISHED
        no_room = self._no_room()
        if no_room is not None:
            return no_room
        self.finish(final)
        return Receipt.NEW

    def known(self, key: Key) -> Receipt:
        """Tell what is known of a key, without a write."""
        if self._unfinished(key):
            return Receipt.RUNNING
        finished = self._execute("SELECT 1 FROM finals WHERE client = ? AND id = ?", key).fetchone()
        return Receipt.FINISHED if finished else Receipt.NEW

    def outgoing(self, after: int, limit: int) -> list[Unsent]:
        """Return unsent finals in order, from the one after ``after``."""
        select = (
            "SELECT outbox.seq, client, id, payload, topic, correlation"
            " FROM outbox JOIN finals ON finals.seq = final WHERE outbox.seq > ? ORDER BY outbox.seq LIMIT ?"
        )
        with contextlib.closing(self._execute(select, (after, limit))) as rows:
            return [
                Unsent(seq, Key(client, job_id), *rest)
                for seq, client, job_id, *rest in (
                    checked(row, int, str, str, bytes, str, (bytes, type(None))) for row in rows
                )
            ]

    def sent(self, seqs: Sequence[int]) -> None:
        """Take finals out of the outbox, and drop those that nobody can ask for again."""
        for seq in seqs:
            taken = self._execute("DELETE FROM outbox WHERE seq = ? RETURNING final", (seq,)).fetchall()
            for final in taken:
                self._execute("DELETE FROM finals WHERE seq = ? AND NOT repeatable", final)
            self._count(unsent=-len(taken))
        self._droppable = True

    def expire(self, before: float) -> int:
        """Drop some of the oldest finals that are sent and finished before a time; return how many."""
        return self._execute(
            "DELETE FROM finals WHERE seq IN (SELECT seq FROM finals WHERE finished_at < ?"
            " AND seq NOT IN (SELECT final FROM outbox) ORDER BY finished_at LIMIT ?)",
            (before - self._shift, _EXPIRED_AT_ONCE),
        ).rowcount

    def clock_jumped(self, by_s: float, now: float) -> None:
        """Let all stamps move along with the wall clock, but for those of the rows that were stamped since.

        None goes beyond ``now``: an earlier run may have stamped rows with a clock that was right, before this one
        started in the past.
        """
        late = (-by_s, now - _NOTICED_S - self._shift, now + _NOTICED_S - self._shift)
        self._execute("UPDATE requests SET received_at = received_at + ? WHERE received_at BETWEEN ? AND ?", late)
        self._execute("UPDATE finals SET finished_at = finished_at + ? WHERE finished_at BETWEEN ? AND ?", late)
        self._shift += by_s
        self._execute("UPDATE clock SET shift = ?", (self._shift,))
        ahead = (now - self._shift, now + _NOTICED_S - self._shift)
        self._execute("UPDATE requests SET received_at = ? WHERE received_at > ?", ahead)
        self._execute("UPDATE finals SET finished_at = ? WHERE finished_at > ?", ahead)

    def _no_room(self) -> SpoolFull | None:
        if sum(self.counts) >= self._room.jobs:
            return SpoolFull(
                f"{self.counts.unfinished} jobs are under way, and {self.counts.unsent} answers wait for the broker:"
                " try again later"
            )
        if self.live_bytes >= self._room.bytes:
            return SpoolFull(
                f"what waits for its answer or for the broker fills {self._room.bytes} bytes: try again later"
            )
        return None

    def _unfinished(self, key: Key) -> bool:
        return self._execute("SELECT 1 FROM requests WHERE client = ? AND id = ?", key).fetchone() is not None

    def _send_again(self, key: Key) -> bool:
        """Put the final of ``key`` into the outbox, if it does not wait there; False if there is none."""
        row = self._execute(
            "SELECT finals.seq, outbox.seq FROM finals LEFT JOIN outbox ON final = finals.seq"
            " WHERE client = ? AND id = ?",
            key,
        ).fetchone()
        if row is None:
            return False
        final, waiting = row
        if waiting is None:
            self._post(final)
        return True

    def _post(self, final: int | None) -> None:
        self._execute("INSERT INTO outbox (seq, final) VALUES (?, ?)", (self.next_unsent, final))
        self.next_unsent += 1
        self._count(unsent=1)

    def _count(self, unfinished: int = 0, unsent: int = 0) -> None:
        self.counts = Counts(self.counts.unfinished + unfinished, self.counts.unsent + unsent)

    def _number(self, query: str) -> int:
        number: int = self._execute(query).fetchone()[0]
        return number


def _readable(job: bytes) -> Job | None:
    try:
        return Job.load(job)
    except ValueError:
        return None
