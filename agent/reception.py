"""A request's way to the disk: it gets a place and is written down, or is refused, before its message is acknowledged.

A frame at QoS 0 without an id is the exception: nobody was promised anything, and a camera that sends thirty a second
would wear an SD card out in weeks. It is not written down; if the agent dies, so does it.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import structlog

from agent.admission import Ticket, camera_of
from agent.contract.errors import Code, JobError
from agent.contract.events import Final, Outcome, Placed
from agent.contract.jobs import Job, Key, Reply
from agent.contract.requests import Refusal
from agent.course import ended_unstarted
from agent.dispatcher import SUPERSEDED, Dispatcher
from agent.latest import LatestOnly
from agent.metrics import Counters
from agent.outbox import Outbox
from agent.spool import Receipt, Spool, SpoolError, SpoolFull, Unfinished

_log = structlog.get_logger(__name__)

# Refusals that are on no disk, a kilobyte each: what comes while one full disk is being cleared.
_MOST_UNSTORED = 1000
# When to ask again a box whose disk, or whose broker, takes nothing more: neither is over in a moment.
_STORE_AGAIN_S = 30.0


class Owed(NamedTuple):
    """A refusal that the disk did not take: it is to be handed over before its request is acknowledged."""

    final: Final
    reply: Reply


class Reception:
    """Takes requests on or refuses them. They wait for the disk side by side, so the spool can commit many at once."""

    def __init__(self, spool: Spool, dispatcher: Dispatcher, outbox: Outbox, counters: Counters) -> None:
        self._spool = spool
        self._dispatcher = dispatcher
        self._outbox = outbox
        self._counters = counters
        self._door = LatestOnly()
        # Jobs that wait for the disk, and whether their client has canceled them meanwhile.
        self._on_the_way: dict[Key, bool] = {}
        # Answers that the disk did not take, oldest first: a repeat of their request gets the same one.
        self._unstored: dict[Key, Final] = {}

    async def recover(self, unfinished: Iterable[Unfinished]) -> None:
        """Let the jobs that an earlier run of the agent was promised to answer wait again, in their order."""
        clocks = _Clocks.read()  # once: what came in the same millisecond must not change places
        for each in unfinished:
            if each.job is None:
                error = JobError(Code.INTERNAL, "the stored request cannot be read by this version of the agent")
                final = _rejected(Refusal(each.key, Reply(), error), egress=each.egress)
                await self._outbox.finish(final, Reply(), repeatable=True)
            else:
                ticket = _ticket(each.job, each.received_at, each.attempt, clocks)
                self._dispatcher.admit(replace(ticket, egress=each.egress))
                if each.canceled:
                    self._dispatcher.cancel(each.key)

    async def admit(self, job: Job, *, stored: bool) -> Owed | None:
        """Take a job on, or refuse it; ``stored`` is whether either is written down. Return what could not be."""
        if job.key in self._unstored:
            return await self._refuse(self._unstored[job.key], job.reply, repeatable=job.named)
        decision = self._dispatcher.decide(job, job.deadline_s)
        if isinstance(decision, JobError):
            return await self.refuse(_refusal(job, decision), stored=stored)
        self._dispatcher.hold(job, decision)
        received_at = time.time()
        ticket = _ticket(job, received_at, 1, _Clocks.read(), stored=stored)
        try:
            receipt = await self._write(job, received_at) if stored else Receipt.NEW
        except SpoolError as error:
            _log.warning("spool.refused", client=job.client, id=job.id, error=str(error))
            return await self.refuse(_refusal(job, _for_now(error)), stored=True)
        finally:
            self._dispatcher.release(job, decision)
            canceled = self._on_the_way.pop(job.key, False)
        if receipt is None:
            ended = ended_unstarted(ticket, SUPERSEDED, asyncio.get_running_loop().time())
            return await self._refuse(ended, job.reply, repeatable=job.named)
        self._settle(receipt, job.key)
        if receipt is Receipt.NEW:
            self._counters.accepted += 1
            self._dispatcher.admit(ticket, decision)
        if canceled:
            await self.cancel(job.key)
        return None

    async def refuse(self, refusal: Refusal, *, stored: bool) -> Owed | None:
        """Answer what never becomes a job; see `admit`."""
        final = self._unstored.get(refusal.key) or _rejected(refusal)
        if stored:
            return await self._refuse(final, refusal.reply, repeatable=refusal.named)
        self._outbox.send(final, refusal.reply)
        self._count(final)
        return None

    async def hand_over(self, owed: Owed, *, qos: int) -> bool:
        """Send a refusal from memory; return whether its request may be acknowledged."""
        if qos == 0:
            self._outbox.send(owed.final, owed.reply)  # nobody was promised that it arrives
            return True
        return await self._outbox.hand_over(owed.final, owed.reply)

    async def cancel(self, key: Key, *, of_pool: bool = False) -> None:
        """End a job at its client's wish, wherever it is; one of a pool's may be with another member."""
        try:
            receipt = await self._spool.cancel(key)
        except SpoolError as error:
            # The mark would only matter after a crash: cancel what runs now all the same.
            _log.error("cancel.not_stored", client=key.client, id=key.id, error=str(error))
            receipt = Receipt.RUNNING
        match receipt:
            case Receipt.RUNNING:
                self._dispatcher.cancel(key)
            case Receipt.FINISHED:
                self._outbox.wake()
            case Receipt.NEW if key in self._on_the_way:
                self._on_the_way[key] = True
            case Receipt.NEW if self._dispatcher.knows(key):
                self._dispatcher.cancel(key)  # it was never to be stored
            case Receipt.NEW if not of_pool:
                self._counters.ignored += 1
                _log.warning("cancel.ignored", why="unknown_id", client=key.client, id=key.id)

    async def _write(self, job: Job, received_at: float) -> Receipt | None:
        """Write a job to disk; None for a frame that a newer one overtook on the way there."""
        # The redelivery of a frame that waits at the door is no newer frame: it goes by, and the disk tells them apart.
        at_door = job.frame is not None and job.key not in self._on_the_way
        self._on_the_way.setdefault(job.key, False)
        if not at_door:
            return await self._spool.accept(job, received_at)
        if not await self._door.enter(camera_of(job)):
            return None
        try:
            return await self._spool.accept(job, received_at)
        finally:
            self._door.leave(camera_of(job))

    async def _refuse(self, final: Final, reply: Reply, *, repeatable: bool) -> Owed | None:
        try:
            receipt = await self._outbox.refuse(final, reply, repeatable=repeatable)
        except SpoolError as broken:
            return await self._refuse_unstored(final, reply, broken)
        counted = self._unstored.pop(final.key, None) is not None
        self._settle(receipt, final.key)
        if receipt is Receipt.NEW and not counted:
            self._count(final)
        return None

    async def _refuse_unstored(self, final: Final, reply: Reply, broken: SpoolError) -> Owed | None:
        """Refuse what cannot be written down: the answer is kept in memory, for a repeat."""
        key = final.key
        first = key not in self._unstored
        # Before anything is waited for: a copy of the request that comes meanwhile must meet this answer.
        self._unstored[key] = final
        _log.error("spool.failed", client=key.client, id=key.id, error=str(broken))
        try:
            known = await self._spool.known(key)
        except SpoolError:
            known = Receipt.RUNNING if self._dispatcher.knows(key) else Receipt.NEW
        if known is not Receipt.NEW:
            self._unstored.pop(key, None)
            return None  # it has its final, or will have: this is a repeat, and can be repeated
        if first:
            self._count(final)
        if len(self._unstored) > _MOST_UNSTORED:
            del self._unstored[next(iter(self._unstored))]
        return Owed(final, reply)

    def _settle(self, receipt: Receipt, key: Key) -> None:
        if receipt is not Receipt.NEW:
            self._counters.duplicates += 1
            _log.info("request.repeated", client=key.client, id=key.id, known_as=str(receipt))
        self._outbox.wake()

    def _count(self, final: Final) -> None:
        code = str(final.error.code) if final.error else "ok"
        self._counters.finished[code] += 1
        _log.info("job.refused", client=final.key.client, id=final.key.id, code=code)


class _Clocks(NamedTuple):
    """The same moment on the monotonic clock, which deadlines are measured by, and on the wall's."""

    steady: float
    wall: float

    @classmethod
    def read(cls) -> "_Clocks":
        return cls(asyncio.get_running_loop().time(), time.time())


def _ticket(job: Job, received_at: float, attempt: int, clocks: _Clocks, *, stored: bool = True) -> Ticket:
    """Place a job's wall-clock arrival on the monotonic clock."""
    received = clocks.steady - max(0.0, clocks.wall - received_at)
    deadline = None if job.deadline_s is None else received + job.deadline_s
    return Ticket(job, received, deadline, attempt, stored=stored)


def _for_now(error: SpoolError) -> JobError:
    """Tell a client why nothing can be stored."""
    code = Code.QUEUE_FULL if isinstance(error, SpoolFull) else Code.INTERNAL
    return JobError(code, f"this box cannot store jobs now: {error}", retry_after_s=_STORE_AGAIN_S)


def _refusal(job: Job, error: JobError) -> Refusal:
    return Refusal(job.key, job.reply, error, job.camera, named=job.named)


def _rejected(refusal: Refusal, *, egress: bool = False) -> Final:
    return Final(
        refusal.key,
        Outcome.REJECTED,
        placement=Placed(reason=refusal.error.word, egress=egress),
        error=refusal.error,
        notice=refusal.reply.notice,
        camera=refusal.camera,
    )
