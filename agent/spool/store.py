"""The database and what keeps it going: the ballast against a full disk, mending against damage.

Everything here runs in the writer thread.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from agent.spool.ballast import SIZE, Ballast
from agent.spool.database import Counts, Database
from agent.spool.files import remove_oldest_aside
from agent.spool.mending import go_on, mend
from agent.spool.records import Room, SpoolSick
from agent.spool.schema import SchemaError
from agent.spool.sickness import UnreadableError, explained, is_damage, is_io_error, refused, wants_room

_log = structlog.get_logger(__name__)

# Between two tries to mend a file: each reads all of it, and a disk that damages it anew wins nothing by haste.
_MEND_AGAIN_S = 10.0
# Between two tries to read a table on a disk that fails: time for a bus or a card to be reset.
_READ_AGAIN_S = 3.0


@dataclass(slots=True, eq=False)
class Operation:
    """What a caller waits for.

    Attributes:
        durable: power loss must not undo it once the caller goes on.
        kept: how much of the ballast it must leave, in bytes: all of it if it brings something new, which can be
            refused; none if it must go through on a full disk.

    """

    work: Callable[[Database], Any]
    done: asyncio.Future[Any]
    durable: bool
    kept: int = 0
    result: Any = None
    failure: Exception | None = None


class Store:
    """The open spool.

    Attributes:
        counts: what it held when it could last be asked.

    Raises:
        SpoolSick: the disk does not let it be opened, or takes no writes.
        SpoolError: it cannot be opened for another reason.

    """

    def __init__(self, path: Path, room: Room) -> None:
        self._path = path
        self._room = room
        self._ballast = Ballast(path.with_name(path.name + ".ballast"))
        self._database: Database | None = None
        self._next_unsent = 1
        self._mend_at = time.monotonic()
        self._crowded = False
        self.counts = Counts(0, 0)
        # Whoever takes requests on must be able to write, and a start is the time to say so.
        try:
            self._heal(self._probe)
        except BaseException:
            self.close()  # its lock would be in the way of the next try
            raise
        self._ballast.whole()

    def close(self) -> None:
        """Let go of the file; what is committed is there."""
        if self._database is not None:
            self.counts, self._next_unsent = self._database.counts, self._database.next_unsent
            self._database.close()
            self._database = None

    def run(self, batch: Sequence[Operation]) -> None:
        """Run a batch in one transaction. If anything fails, run each operation in one of its own.

        So only those hear of an error that have it alone: a frame that no longer fits on the disk takes no
        small final with it. Savepoints would not do, as a full disk mostly shows in the commit that all share;
        and they cost every operation two more statements.
        """
        if any(operation.kept == SIZE for operation in batch) and not self._ballast.whole():
            for operation in batch:
                if operation.kept == SIZE:
                    operation.failure = SpoolSick(f"no space left beside {self._path}: free some on its disk")
            batch = [operation for operation in batch if operation.kept < SIZE]
        if len(batch) > 1:
            try:
                self._commit(batch)
            except Exception:  # noqa: BLE001  it belongs to one of them, who is found out now
                for operation in batch:
                    self._run_alone(operation)
        elif batch:
            self._run_alone(batch[0])
        if self._database is not None:
            self.counts = self._database.counts

    def _run_alone(self, operation: Operation) -> None:
        try:
            self._heal(lambda: self._commit([operation]), operation.kept)
        except Exception as error:  # noqa: BLE001  whatever it is belongs to a caller, and must not end the thread
            operation.failure = error

    def _commit(self, batch: Sequence[Operation]) -> None:
        database = self._ready()

        def work() -> None:
            for operation in batch:
                operation.result = operation.work(database)

        durable = any(operation.durable for operation in batch)
        # What brings nothing needs no room; and reads must not fail of a disk that takes no writes.
        if durable:
            self._make_room(database)
        database.transact(work, durable=durable)

    def _probe(self) -> None:
        database = self._ready()
        database.transact(database.probe, durable=True)
        self.counts = database.counts

    def _make_room(self, database: Database) -> None:
        """Drop sent finals before their time where there is hardly any room; said once, and not for each."""
        if database.crowded:
            if not self._crowded:
                _log.warning("spool.crowded", live_bytes=database.live_bytes)
            self._crowded = True
            database.transact(database.drop_early, durable=False)
        elif database.roomy:
            self._crowded = False

    def _ready(self) -> Database:
        """Return the database; open it, if it is not, for it could not be mended before."""
        if self._database is None:
            try:
                go_on(self._path)
            except OSError as error:
                raise refused(error, f"cannot rename {self._path} ({error}): check who owns it") from error
            self._database = Database(self._path, self._room, self._next_unsent)
        return self._database

    def _heal(self, work: Callable[[], None], kept: int = 0) -> None:
        """Do what can be done again, and do it again where something helps against what it failed of.

        Args:
            work: what to do.
            kept: how much of the ballast is not for it, in bytes.

        Raises:
            SpoolError: nothing helps.

        """
        try:
            while True:
                try:
                    return work()
                except (sqlite3.Error, SchemaError) as error:
                    if isinstance(error, SchemaError) or is_damage(error):
                        self._mend(error)
                    elif not (wants_room(error) and self._ballast.give(kept)):
                        raise explained(error, self._path) from error
        except MemoryError as error:
            raise SpoolSick(f"no memory is left to use {self._path}: end other programs on the box") from error

    def _mend(self, why: Exception) -> None:
        """Replace the file. What is in it and cannot be read is lost; what was told to be durable is carried over."""
        self.close()
        now = time.monotonic()
        if now < self._mend_at:
            raise SpoolSick(
                f"{self._path} is damaged ({why}), and will be mended: check the health of its disk"
            ) from why
        self._mend_at = now + _MEND_AGAIN_S
        given_up: set[str] = set()
        while True:
            try:
                return mend(self._path, str(why), self._next_unsent, given_up)
            except UnreadableError as error:
                # The thread waits, and everybody with it: the next try could be one of another start, which would
                # not know that this one failed, and so never take a bad sector for one.
                _log.error("spool.unreadable", path=str(self._path), error=str(error), retry_in_s=_READ_AGAIN_S)
                time.sleep(_READ_AGAIN_S)
                given_up.add(error.table)
            except (sqlite3.Error, OSError) as error:
                if not (wants_room(error) and self._ballast.give(0)) and not self._removed_for(error):
                    advice = (
                        f"{self._path} is damaged ({why}) and cannot be mended now ({error}): free some on its disk"
                    )
                    raise SpoolSick(advice) from error

    def _removed_for(self, error: Exception) -> bool:
        """Remove a file that was set aside, if there is one and room is what is missing: not for a disk that fails."""
        return wants_room(error) and not is_io_error(error) and remove_oldest_aside(self._path)
