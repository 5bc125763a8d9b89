"""The spool's asyncio face, and the one thread behind it that owns the database.

The thread commits in groups: it takes all operations that wait, runs them in one transaction, and answers their
callers after the one commit. What many callers share is the fsync, the dearest part of a write on an SD card,
and the flash pages that it wears. aiosqlite, the usual choice, has no such thing: each of its callers pays alone.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import structlog

from agent.contract.jobs import Job, Key
from agent.spool.ballast import FOR_JOBS, SIZE
from agent.spool.database import Counts, Database
from agent.spool.files import locked
from agent.spool.records import Receipt, Room, SpoolError, SpoolFull, StoredFinal, Total, Unfinished, Unsent
from agent.spool.store import Operation, Store

_log = structlog.get_logger(__name__)

T = TypeVar("T")

# Operations in one transaction: so many that an fsync's share is small, and so few that the first caller does not
# wait long for the last one's work, 40 µs each here. Their size needs no bound of its own: no more frames come
# at a time than the broker's window lets through.
_BATCH = 256
_ANY = Room()


# How long the disk may take at the end. A card that hangs in an fsync must not keep the agent from ending; what it was
# told to be durable is.
_CLOSE_S = 5.0


class Spool:
    """The agent's durable memory. Its methods may be called side by side, from the event loop that opened it.

    A caller that is cancelled stops waiting; the operation that it asked for happens all the same, whole.

    Every method raises `SpoolError` where the disk refuses; nothing has changed then, and the spool goes on
    serving. Operations are durable when they return, but for `sent`, `expire`, `spent` and `keep_rates`: these cause
    no fsync of their own, for what power loss makes of them is allowed: a final sent twice or dropped later, tokens
    that nobody charges, a rate that is measured again.
    """

    def __init__(self, path: Path, room: Room) -> None:
        self._path = path
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._counts = Counts(0, 0)
        self._closing = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        # None asks the thread to end.
        self._waiting: SimpleQueue[Operation | None] = SimpleQueue()

    def __repr__(self) -> str:
        closed = " closed" if self._closing else ""
        return f"<Spool {self._path} unfinished={self.unfinished} unsent={self.unsent}{closed}>"

    @classmethod
    async def open(cls, path: Path, room: Room = _ANY) -> "Spool":
        """Open the spool at ``path``, making it and its folder (mode 0700) where they are missing.

        A file that is damaged, or of another program or a newer version, is set aside for a new one with everything
        in it that can be read.

        Raises:
            SpoolSick: its disk is full, read-only or failing, which may pass.
            SpoolError: it cannot be written for another reason, or another agent holds it.

        """
        spool = cls(path, room)
        opened: asyncio.Future[None] = spool._loop.create_future()
        # A daemon: an agent that fails before it closes the spool must still be able to exit.
        threading.Thread(target=spool._serve, args=(opened,), name="spool", daemon=True).start()
        try:
            await opened
        except asyncio.CancelledError:
            spool._waiting.put(None)
            raise
        return spool

    @property
    def unfinished(self) -> int:
        """Requests that have no final yet."""
        return self._counts.unfinished

    @property
    def unsent(self) -> int:
        """Finals that the broker has not acknowledged."""
        return self._counts.unsent

    async def recover(self) -> list[Unfinished]:
        """Return every unfinished request in order of acceptance, one attempt on. For each new service.

        Attempts are counted here, in one statement for all, and not when a job starts: that would be a write and
        an fsync for every job, where only a job that outlives its agent has a second attempt to tell apart.
        """
        return await self._do(Database.recover)

    async def accept(self, job: Job, received_at: float) -> Receipt:
        """Keep ``job``, which arrived at wall-clock ``received_at``, unless its key is known.

        The final of a finished one goes to the outbox again, if it does not wait there already.

        Raises:
            SpoolFull: there is no room for one more job.

        """
        work = partial(Database.accept, key=job.key, job=job.dump(), received_at=received_at)
        return _with_room(await self._do(work, kept=SIZE))

    async def restarted(self, key: Key, attempt: int) -> None:
        """Note that a job began anew as ``attempt`` in this run, so that no later run uses the number again."""
        await self._do(partial(Database.restarted, key=key, attempt=attempt))

    async def cancel(self, key: Key) -> Receipt:
        """Mark an unfinished request as canceled; the final of a finished one goes to the outbox again."""
        return await self._do(partial(Database.cancel, key=key))

    async def finish(self, final: StoredFinal) -> bool:
        """Let a final take its request's place and wait to be sent; False if there is one, which stands as it is."""
        return await self._do(partial(Database.finish, final=final))

    async def refuse(self, final: StoredFinal) -> Receipt:
        """Store the final of a request that never becomes a job, unless its key is known; if so, as `accept`.

        Raises:
            SpoolFull: there is no room for one more final.

        """
        return _with_room(await self._do(partial(Database.refuse, final=final), kept=FOR_JOBS))

    async def known(self, key: Key) -> Receipt:
        """Tell what is known of a key. It writes nothing, and so works on a full disk."""
        return await self._do(partial(Database.known, key=key), durable=False)

    async def leaving(self, key: Key, totals: Sequence[Total]) -> None:
        """Note that bytes of a request are about to leave the box, and what is spent with that, in one fsync.

        Of a frame that is not stored there is nothing to mark, and only the totals are kept.
        """
        # A note: on a full disk the finals come first.
        await self._do(partial(Database.leave, key=key, totals=totals), kept=FOR_JOBS)

    async def spent(self, totals: Sequence[Total]) -> None:
        """Keep what is spent; totals of other days and months are dropped."""
        await self._do(lambda database: database.notes.spend(totals), durable=False, kept=FOR_JOBS)

    async def spending(self) -> list[Total]:
        """Return what is spent, as it was last told."""
        return await self._do(lambda database: database.notes.spending(), durable=False)

    async def keep_rates(self, name: str, value: bytes) -> None:
        """Keep a value under a name, in the place of its last one."""
        await self._do(lambda database: database.notes.keep_rates(name, value), durable=False, kept=SIZE)

    async def rates(self) -> dict[str, bytes]:
        """Return the values that `keep_rates` was told, by name."""
        return await self._do(lambda database: database.notes.rates(), durable=False)

    async def tell(self, camera: str, policy: bytes) -> None:
        """Keep what was last told on a camera's config topic; nothing, if that was nothing."""
        await self._do(lambda database: database.notes.tell(camera, policy), kept=SIZE)

    async def told(self) -> dict[str, bytes]:
        """Return what was told, by camera."""
        return await self._do(lambda database: database.notes.told(), durable=False)

    async def forget_cameras(self) -> None:
        """Drop what was told of cameras."""
        await self._do(lambda database: database.notes.forget_cameras())

    async def outgoing(self, after: int, limit: int) -> list[Unsent]:
        """Return the first ``limit`` unsent finals whose ``seq`` is above ``after``, in order."""
        return await self._do(partial(Database.outgoing, after=after, limit=limit), durable=False)

    async def sent(self, seqs: Sequence[int]) -> None:
        """Take finals out of the outbox: the broker has them."""
        await self._do(partial(Database.sent, seqs=seqs), durable=False)

    async def expire(self, before: float) -> int:
        """Drop the finals that finished before this wall-clock time and are sent; return how many."""
        total = 0
        while dropped := await self._do(partial(Database.expire, before=before), durable=False):
            total += dropped
        return total

    async def clock_jumped(self, by_s: float, now: float) -> None:
        """Let what is stored have the age that it has: the wall clock was set by ``by_s``, and is ``now``.

        All stamps move along, but for those of the last ten seconds, which are the new clock's already.
        """
        await self._do(partial(Database.clock_jumped, by_s=by_s, now=now), durable=False)

    async def close(self) -> None:
        """Commit what was asked for so far, then let go of the file. Idempotent; nothing else works afterwards.

        It returns after five seconds at the latest, and leaves a disk that hangs to itself.
        """
        if not self._closing:
            self._closing = True
            self._waiting.put(None)
        # Waited for and not awaited: whoever else closes waits for the same end.
        done, _ = await asyncio.wait([self._ended], timeout=_CLOSE_S)
        if not done:
            _log.error("spool.close_timed_out", path=str(self._path), after_s=_CLOSE_S)

    async def _do(self, work: Callable[[Database], T], *, durable: bool = True, kept: int = 0) -> T:
        if self._closing:
            raise SpoolError(f"the spool {self._path} is closed")
        operation = Operation(work, self._loop.create_future(), durable=durable, kept=kept)
        self._waiting.put(operation)
        result: T = await operation.done
        return result

    def _serve(self, opened: asyncio.Future[None]) -> None:
        """Be the writer thread."""
        try:
            with locked(self._path), contextlib.closing(Store(self._path, self._room)) as store:
                self._tell(self._resolve, [], store.counts)
                self._tell(_settle, opened)
                for batch in self._batches():
                    store.run(batch)
                    self._tell(self._resolve, batch, store.counts)
        except Exception as error:  # noqa: BLE001  it belongs to whoever opens the spool
            self._tell(_settle, opened, error)
        finally:
            self._tell(_settle, self._ended)

    def _batches(self) -> Iterator[list[Operation]]:
        """Yield all that waits, as soon as something does, until asked to end."""
        while True:
            batch: list[Operation] = []
            operation = self._waiting.get()
            while operation is not None:
                batch.append(operation)
                if len(batch) == _BATCH or self._waiting.empty():
                    break
                operation = self._waiting.get()
            if batch:
                yield batch
            if operation is None:
                return

    def _resolve(self, batch: list[Operation], counts: Counts) -> None:
        """Answer the callers of a batch, in the event loop."""
        self._counts = counts
        for operation in batch:
            _settle(operation.done, operation.failure, operation.result)

    def _tell(self, callback: Callable[..., object], *arguments: object) -> None:
        """Have the event loop call back. A closed loop has nobody left to be told; the thread goes on to the end."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)


def _with_room(receipt: Receipt | SpoolFull) -> Receipt:
    if isinstance(receipt, SpoolFull):
        raise receipt
    return receipt


def _settle(future: asyncio.Future[Any], failure: Exception | None = None, result: object = None) -> None:
    """Resolve a future, unless its caller was cancelled."""
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)
