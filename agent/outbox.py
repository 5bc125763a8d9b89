"""Finals on their way out: stored first, published in order, struck off when the broker has them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import structlog

from agent.bus import Bus, BusError, TryLaterError
from agent.contract.events import Final, shortened
from agent.contract.jobs import Key, Reply
from agent.contract.messages import Outgoing
from agent.contract.topics import Topics
from agent.publisher import addressed
from agent.spool import Receipt, Spool, SpoolError, StoredFinal, Unsent

_log = structlog.get_logger(__name__)

# Finals that wait for their PUBACK at a time. Thirty-two of them fill a 50 ms link at 640 finals a second; each
# may be as large as an answer, so there are not more.
_WINDOW = 32
# Between two tries at a disk that takes nothing.
_DISK_RETRY_S = 1.0
# Before finals that the broker did not take, for want of quota for one, are tried again. The rounds grow rarer while
# there are any: it may be a day's worth of them.
_FIRST_PUT_OFF_S, _MOST_PUT_OFF_S = 1.0, 300.0

_T = TypeVar("_T")


class Outbox:
    """The finals' one way to the broker.

    Args:
        spool: where finals and their outbox rows are.
        bus: publishes them, and waits for PUBACK across reconnects.
        topics: this node's topics.

    """

    def __init__(self, spool: Spool, bus: Bus, topics: Topics) -> None:
        self._spool = spool
        self._bus = bus
        self._topics = topics
        self._wake = asyncio.Event()
        self._wake.set()
        self._settled = asyncio.Event()
        self._window = asyncio.Semaphore(_WINDOW)
        self._last_taken = 0
        # Rows between their reading and their end; the oldest one that was put off, and when that is to be read again.
        self._under_way: set[int] = set()
        self._put_off: int | None = None
        self._put_off_s = _FIRST_PUT_OFF_S
        self._put_off_at = 0.0
        self._due = False

    def wake(self) -> None:
        """Look for rows that were added."""
        self._wake.set()

    async def finish(self, final: Final, reply: Reply, *, repeatable: bool) -> bool:
        """Store a job's final, however long the disk refuses; False if one stands already. See `refuse`."""
        # Meanwhile the job stays unfinished on disk: a crash now costs a second run and never the answer.
        stored = replace(self._stored(final, reply), repeatable=repeatable)
        new = await _patiently(lambda: self._spool.finish(stored))
        self.wake()
        return new

    async def refuse(self, final: Final, reply: Reply, *, repeatable: bool) -> Receipt:
        """Store the final of a request that never becomes a job, unless its key is known already.

        Args:
            final: the refusal.
            reply: where it goes.
            repeatable: whether its client chose the id, and so can repeat the request.

        """
        receipt = await self._spool.refuse(replace(self._stored(final, reply), repeatable=repeatable))
        self.wake()
        return receipt

    def send(self, final: Final, reply: Reply) -> None:
        """Publish a final once, if the broker is there: of a job that nobody was promised anything about."""
        self._bus.send(addressed(self._topics, final.key, reply, "final", final.encode(self._topics.node), 1))

    async def hand_over(self, final: Final, reply: Reply) -> bool:
        """Publish a final from memory, where the disk takes nothing; return whether its request may be acknowledged."""
        out = addressed(self._topics, final.key, reply, "final", final.encode(self._topics.node), 1)
        try:
            return await self._bus.hand_over(out, partial(_shorten, final.key, out.payload))
        except BusError as error:
            _log.error("final.undeliverable", client=final.key.client, id=final.key.id, error=str(error))
            return True

    async def run(self) -> None:
        """Publish what waits, in order, for ever."""
        async with asyncio.TaskGroup() as sending:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while True:
                    busy = self._under_way.copy()  # before the read: what ends meanwhile may still be in it
                    rows = await _patiently(lambda: self._spool.outgoing(self._cursor(), _WINDOW))
                    if not rows:
                        break
                    for row in rows:
                        self._last_taken = row.seq
                        if row.seq not in busy:
                            await self._window.acquire()
                            self._under_way.add(row.seq)
                            sending.create_task(self._deliver(row), name=f"outbox {row.seq}")

    async def flush(self) -> None:
        """Wait until the broker has every final that is stored."""
        while self._spool.unsent:
            self._settled.clear()
            await self._settled.wait()

    async def _deliver(self, row: Unsent) -> None:
        try:
            if await self._is_settled(row):
                await _patiently(lambda: self._spool.sent([row.seq]))
                self._settled.set()
        finally:
            # Not before it is struck off: a disk that takes nothing would let the whole outbox into memory.
            self._window.release()
            self._under_way.remove(row.seq)

    async def _is_settled(self, row: Unsent) -> bool:
        """Publish a final; return whether it is done with."""
        try:
            await self._bus.deliver(self._outgoing(row), partial(_shorten, row.key, row.payload))
        except TryLaterError as error:
            self._try_later(row, error)
            return False
        except BusError as error:
            # It can never go out as it is. It stays stored, and a repeat of its request asks for it again.
            _log.error("final.undeliverable", client=row.key.client, id=row.key.id, error=str(error))
        return True

    def _try_later(self, row: Unsent, error: TryLaterError) -> None:
        """Read a row again after a while. It waits on disk meanwhile, and those behind it go out."""
        now = asyncio.get_running_loop().time()
        if now - self._put_off_at > 2 * self._put_off_s:
            self._put_off_s = _FIRST_PUT_OFF_S  # the last time is over
        self._put_off_at = now
        if self._put_off is None:
            _log.warning(
                "final.put_off", client=row.key.client, id=row.key.id, error=str(error), retry_in_s=self._put_off_s
            )
            asyncio.get_running_loop().call_later(self._put_off_s, self._look_back)
            self._put_off_s = min(2 * self._put_off_s, _MOST_PUT_OFF_S)
        self._put_off = row.seq if self._put_off is None else min(self._put_off, row.seq)

    def _look_back(self) -> None:
        self._due = True
        self._wake.set()

    def _cursor(self) -> int:
        """Return the row after which to read on."""
        if self._due and self._put_off is not None:
            self._last_taken = min(self._last_taken, self._put_off - 1)
            self._put_off, self._due = None, False
        return self._last_taken

    def _outgoing(self, row: Unsent) -> Outgoing:
        properties = () if self._topics.is_final(row.topic, *row.key) else (("event", "final"),)
        return Outgoing(row.topic, row.payload, 1, correlation=row.correlation, properties=properties)

    def _stored(self, final: Final, reply: Reply) -> StoredFinal:
        out = addressed(self._topics, final.key, reply, "final", final.encode(self._topics.node), 1)
        return StoredFinal(final.key, out.payload, out.topic, out.correlation, time.time())


def _shorten(key: Key, final: bytes, most: int, max_packet: int) -> bytes:
    _log.warning("final.truncated", client=key.client, id=key.id, bytes=len(final), max_packet=max_packet)
    try:
        return shortened(final, most, max_packet)
    except (ValueError, KeyError, TypeError):
        return final  # a damaged disk had it; the broker will say what it thinks of it


async def _patiently(operation: Callable[[], Awaitable[_T]]) -> _T:
    """Do what the disk refuses again until it does not: a full disk is no reason to stop the box."""
    while True:
        try:
            return await operation()
        except SpoolError as error:
            _log.error("spool.failed", error=str(error), retry_in_s=_DISK_RETRY_S)
            await asyncio.sleep(_DISK_RETRY_S)
