"""Finals on their way out: stored first, published in order, struck off when the broker has them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import structlog

from agent.bus import Bus, BusError
from agent.contract.events import Final
from agent.contract.jobs import Reply
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
# For a final that could not be stored. A broker answers within a round trip, or is not there.
_UNSTORED_S = 5.0

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

    async def deliver_unstored(self, final: Final, reply: Reply) -> None:
        """Publish a final from memory, where the disk takes nothing; return when the broker has it.

        The wait is bounded: while too much is unacknowledged here, nothing is read, and so no PUBACK either.
        """
        out = addressed(self._topics, final.key, reply, "final", final.encode(self._topics.node), 1)
        try:
            async with asyncio.timeout(_UNSTORED_S):
                await self._bus.deliver(out)
        except (TimeoutError, BusError) as error:
            _log.error("final.lost", client=final.key.client, id=final.key.id, error=str(error) or "no answer")

    async def run(self) -> None:
        """Publish what waits, in order, for ever."""
        async with asyncio.TaskGroup() as sending:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while rows := await _patiently(lambda: self._spool.outgoing(self._last_taken, _WINDOW)):
                    for row in rows:
                        await self._window.acquire()
                        self._last_taken = row.seq
                        sending.create_task(self._deliver(row), name=f"outbox {row.seq}")

    async def flush(self) -> None:
        """Wait until the broker has every final that is stored."""
        while self._spool.unsent:
            self._settled.clear()
            await self._settled.wait()

    async def _deliver(self, row: Unsent) -> None:
        try:
            await self._bus.deliver(self._outgoing(row))
        except BusError as error:
            # It can never go out as it is. It stays stored, and a repeat of its request asks for it again.
            _log.error("final.undeliverable", client=row.key.client, id=row.key.id, error=str(error))
        finally:
            self._window.release()
        await _patiently(lambda: self._spool.sent([row.seq]))
        self._settled.set()

    def _outgoing(self, row: Unsent) -> Outgoing:
        usual = row.topic == f"{self._topics.results(*row.key)}/final"
        properties = () if usual else (("event", "final"),)
        return Outgoing(row.topic, row.payload, 1, correlation=row.correlation, properties=properties)

    def _stored(self, final: Final, reply: Reply) -> StoredFinal:
        out = addressed(self._topics, final.key, reply, "final", final.encode(self._topics.node), 1)
        return StoredFinal(final.key, out.payload, out.topic, out.correlation, time.time())


async def _patiently(operation: Callable[[], Awaitable[_T]]) -> _T:
    """Do what the disk refuses again until it does not: a full disk is no reason to stop the box."""
    while True:
        try:
            return await operation()
        except SpoolError as error:
            _log.error("spool.failed", error=str(error), retry_in_s=_DISK_RETRY_S)
            await asyncio.sleep(_DISK_RETRY_S)
