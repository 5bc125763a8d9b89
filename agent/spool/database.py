"""The spool's tables and the SQL on them. Everything here runs in the writer thread, inside its transactions."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agent.contract.jobs import Job, Key
from agent.spool.records import Receipt, SpoolError, StoredFinal, Unfinished, Unsent

_SCHEMA = 2
# Neither key is AUTOINCREMENT, which is one more page to write in each commit. Among living rows the order holds
# without it; `_next_unsent` keeps the outbox's cursor from meeting a number twice.
_TABLES = """
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY, client TEXT NOT NULL, id TEXT NOT NULL, received_at REAL NOT NULL,
    attempt INTEGER NOT NULL, canceled INTEGER NOT NULL, job BLOB NOT NULL, UNIQUE (client, id));
CREATE TABLE finals (
    seq INTEGER PRIMARY KEY, client TEXT NOT NULL, id TEXT NOT NULL, finished_at REAL NOT NULL,
    topic TEXT NOT NULL, correlation BLOB, payload BLOB NOT NULL, repeatable INTEGER NOT NULL, UNIQUE (client, id));
CREATE INDEX finals_by_age ON finals (finished_at);
CREATE TABLE outbox (seq INTEGER PRIMARY KEY, final INTEGER NOT NULL UNIQUE REFERENCES finals);
"""
_CAMERAS = "CREATE TABLE cameras (name TEXT PRIMARY KEY, policy BLOB NOT NULL) WITHOUT ROWID;"
_PRAGMAS = (
    "journal_mode = WAL",
    # Copying the WAL back costs two fsyncs, and writes a page once however often it changed in between: 4 MiB
    # are some hundred small commits, and a crash leaves no more than that to read back.
    "wal_autocheckpoint = 1000",
    # After a burst of frames the WAL gives its space back, but for what the next 4 MiB need: overwriting blocks
    # that a file has already spares the file system's own journal.
    "journal_size_limit = 8388608",
    # Debian's SQLite writes zeros over what is deleted: a frame of 500 KB then cost 1.4 MB of flash, and costs 0.75 so.
    "secure_delete = FAST",
    # The hot pages of a small spool and no more.
    "cache_size = -1024",
)
# Finals dropped in one operation, so that no accept waits behind a day's worth of them.
_EXPIRED_AT_ONCE = 256


class Counts(NamedTuple):
    """How many requests have no final, and how many finals the broker does not have."""

    unfinished: int
    unsent: int


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Make the spool's folder (mode 0700) if need be, and keep other agents away from the spool.

    A lock of our own, as SQLite's would let a second agent in, to answer the same jobs.
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
            raise SpoolError(
                f"cannot write in {path.parent} ({error.strerror}): make it writable, or set another state_dir"
            ) from error
        # The pid is for that sentence alone, so a full disk may keep it out.
        with contextlib.suppress(OSError):
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
        yield


class Database:
    """The open tables.

    Attributes:
        counts: what the tables hold, kept in step so that nobody has to count rows.

    Raises:
        SpoolError: the file cannot be used.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._durable: bool | None = None
        try:
            # Made here and not by SQLite, which would let others read the prompts in it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(path, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"cannot open {path} ({error}): check what it is and who owns it") from error
        # The connection keeps every statement below prepared: they are fewer than its cache of 128.
        self._execute = self._connection.execute
        try:
            self._prepare()
        except sqlite3.Error as error:
            self.close()
            raise self.explained(error) from error
        except SpoolError:
            self.close()
            raise

    def _prepare(self) -> None:
        schema = self._number("PRAGMA user_version")
        if schema == 0 and self._number("SELECT count(*) FROM sqlite_schema") == 0:
            self._connection.executescript(f"BEGIN; {_TABLES} {_CAMERAS} PRAGMA user_version = {_SCHEMA}; COMMIT")
        elif schema == 1:
            self._connection.executescript(f"BEGIN; {_CAMERAS} PRAGMA user_version = {_SCHEMA}; COMMIT")
        elif schema != _SCHEMA:
            raise SpoolError(
                f"{self._path} has schema {schema} and this edge-slm knows {_SCHEMA}: "
                "run the version that wrote it, or move the file away"
            )
        for pragma in _PRAGMAS:
            self._execute(f"PRAGMA {pragma}")
        self.counts = Counts(self._number("SELECT count(*) FROM requests"), self._number("SELECT count(*) FROM outbox"))
        self._next_unsent = self._number("SELECT coalesce(max(seq), 0) + 1 FROM outbox")

    def close(self) -> None:
        """Let go of the file; what is committed is there."""
        self._connection.close()

    def transact(self, work: Callable[[], None], *, durable: bool) -> None:
        """Do ``work`` in one transaction, or nothing of it; ``durable`` against power loss, too, on return.

        Without fsync a commit is still whole or not at all, and the next durable one makes it durable as well.
        """
        if durable is not self._durable:
            self._execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        before = self.counts
        try:
            self._execute("BEGIN")
            work()
            self._execute("COMMIT")
        except BaseException:
            self.counts = before
            # SQLite has rolled back by itself after some errors; after others, a second one changes nothing.
            with contextlib.suppress(sqlite3.Error):
                self._execute("ROLLBACK")
            raise

    def explained(self, error: sqlite3.Error) -> SpoolError:
        """Say what to do about an error."""
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_FULL:
                advice = f"no space left for {self._path}: free some on its disk"
            case sqlite3.SQLITE_IOERR:
                advice = f"the disk under {self._path} fails ({error}): check its space, quota and health"
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                advice = f"{self._path} is damaged ({error}): move it away, and the jobs in it are lost"
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
                advice = f"cannot write {self._path} ({error}): check who owns it and whether its disk is read-only"
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                advice = f"another program has locked {self._path}: close it"
            case _:
                advice = f"{self._path} cannot be used ({error})"
        return SpoolError(advice)

    def recover(self) -> list[Unfinished]:
        """Count one attempt for every request, and return them in order of acceptance."""
        self._execute("UPDATE requests SET attempt = attempt + 1")
        rows = self._execute("SELECT client, id, job, received_at, attempt, canceled FROM requests ORDER BY seq")
        return [
            Unfinished(Key(client, job_id), _readable(job), received_at, attempt, bool(canceled))
            for client, job_id, job, received_at, attempt, canceled in rows
        ]

    def accept(self, key: Key, job: bytes, received_at: float) -> Receipt:
        """Keep a request, unless its key is known."""
        if self._send_again(key):
            return Receipt.FINISHED
        added = self._execute(
            "INSERT INTO requests (client, id, received_at, attempt, canceled, job) VALUES (?, ?, ?, 1, 0, ?)"
            " ON CONFLICT DO NOTHING",
            (*key, received_at, job),
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

    def finish(self, final: StoredFinal) -> bool:
        """Let a final take its request's place, and wait to be sent; False if the key has one already."""
        removed = self._execute("DELETE FROM requests WHERE client = ? AND id = ?", final.key).rowcount
        stored = self._execute(
            "INSERT INTO finals (client, id, finished_at, topic, correlation, payload, repeatable)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (*final.key, final.finished_at, final.topic, final.correlation, final.payload, final.repeatable),
        )
        self._count(unfinished=-removed)
        if not stored.rowcount:
            return False
        self._post(stored.lastrowid)
        return True

    def refuse(self, final: StoredFinal) -> Receipt:
        """Store the final of what never was a request, unless its key is known."""
        if self._unfinished(final.key):
            return Receipt.RUNNING
        if self._send_again(final.key):
            return Receipt.FINISHED
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
        rows = self._execute(
            "SELECT outbox.seq, client, id, payload, topic, correlation"
            " FROM outbox JOIN finals ON finals.seq = final WHERE outbox.seq > ? ORDER BY outbox.seq LIMIT ?",
            (after, limit),
        )
        return [Unsent(seq, Key(client, job_id), *rest) for seq, client, job_id, *rest in rows]

    def sent(self, seqs: Sequence[int]) -> None:
        """Take finals out of the outbox, and drop those that nobody can ask for again."""
        for seq in seqs:
            taken = self._execute("DELETE FROM outbox WHERE seq = ? RETURNING final", (seq,)).fetchall()
            for final in taken:
                self._execute("DELETE FROM finals WHERE seq = ? AND NOT repeatable", final)
            self._count(unsent=-len(taken))

    def expire(self, before: float) -> int:
        """Drop some of the oldest finals that are sent and finished before a time; return how many."""
        return self._execute(
            "DELETE FROM finals WHERE seq IN (SELECT seq FROM finals WHERE finished_at < ?"
            " AND seq NOT IN (SELECT final FROM outbox) ORDER BY finished_at LIMIT ?)",
            (before, _EXPIRED_AT_ONCE),
        ).rowcount

    def tell(self, camera: str, policy: bytes) -> None:
        """Keep a camera's policy in the place of its last one; an empty one leaves none."""
        self._execute("DELETE FROM cameras WHERE name = ?", (camera,))
        if policy:
            self._execute("INSERT INTO cameras VALUES (?, ?)", (camera, policy))

    def told(self) -> dict[str, bytes]:
        """Return the policies that are kept, by camera."""
        return dict(self._execute("SELECT name, policy FROM cameras").fetchall())

    def forget_cameras(self) -> None:
        """Drop all policies."""
        self._execute("DELETE FROM cameras")

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
        self._execute("INSERT INTO outbox (seq, final) VALUES (?, ?)", (self._next_unsent, final))
        self._next_unsent += 1
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
