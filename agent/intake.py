"""What happens to a message until it is acknowledged: read, judged, written to disk, and only then acked.

A frame at QoS 0 without an id is the exception: nobody was promised anything, and a camera that sends thirty a second
would wear an SD card out in weeks. It is not written down; if the agent dies, so does it.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog

from agent.admission import Ticket
from agent.bus import Delivery
from agent.cameras import Cameras
from agent.contract.errors import NO_VISION, Code, JobError
from agent.contract.events import Final, Outcome, Placed
from agent.contract.jobs import Job, Key, Reply
from agent.contract.messages import Inbound
from agent.contract.requests import Defaults, Limits, Refusal, is_frame, read_cancel, read_request
from agent.contract.sources import Source
from agent.contract.topics import Kind, Route, Topics
from agent.dispatcher import SUPERSEDED, Dispatcher
from agent.latest import LatestOnly
from agent.metrics import Counters
from agent.outbox import Outbox
from agent.spool import Receipt, Spool, SpoolError, Unfinished

_log = structlog.get_logger(__name__)

# Brokers send what is retained right after the SUBACK; this is time for a slow link, once in an agent's life.
_RETAINED_S = 0.5
# A quarter of what the bus lets in, weighed as it does: beyond that it would stop reading, and never see the SUBACK.
_EARLY_BYTES, _LIGHTEST = 8 << 20, 32 << 10


class Intake:
    """Turns messages into jobs that wait, or into refusals.

    Messages are handled in their order of arrival up to the spool's queue, so a cancel never overtakes the
    request that it means. They wait for the disk side by side, so the spool can commit many at once.
    """

    def __init__(
        self,
        topics: Topics,
        sources: Sequence[Source],
        cameras: Cameras,
        limits: Limits,
        spool: Spool,
        dispatcher: Dispatcher,
        outbox: Outbox,
        counters: Counters,
        new_id: Callable[[], str],
    ) -> None:
        self._topics = topics
        self._sources = sources
        self._cameras = cameras
        self._limits = limits
        self._spool = spool
        self._dispatcher = dispatcher
        self._outbox = outbox
        self._counters = counters
        self._new_id = new_id
        self._to_disk = LatestOnly()
        self._tasks: set[asyncio.Task[None]] = set()
        # What came before the cameras' retained configuration could have; None once it is there.
        self._early: list[Delivery] | None = []
        self._closed = False

    def online(self) -> None:
        """Take note that the box has subscribed, so that what is retained is here, or on its way."""
        if self._early:
            asyncio.get_running_loop().call_later(_RETAINED_S, self._begin)
        else:
            self._begin()

    def receive(self, delivery: Delivery) -> None:
        """Take a message from the bus. Once closed, leave it unacknowledged: the broker keeps it for the next start.

        What a broker kept for us while we were away it sends before we can subscribe, and so before any camera's
        retained question: such a frame waits for its question.
        """
        if self._early is not None and self._topics.read_camera_config(delivery.message.topic) is None:
            self._early.append(delivery)
            if sum(max(len(each.message.payload), _LIGHTEST) for each in self._early) > _EARLY_BYTES:
                self._begin()
        elif not self._closed:
            self._take(delivery)

    def _begin(self) -> None:
        early, self._early = self._early or [], None
        for delivery in early:
            self.receive(delivery)

    def _take(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._handle(delivery), name=f"intake {delivery.message.topic[:80]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, seconds: float) -> None:
        """Take no more messages, and finish with those that were taken; give up those that a sick disk holds up.

        Nothing is lost with them: they are not acknowledged.
        """
        self._closed = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()

    async def recover(self, unfinished: Iterable[Unfinished]) -> None:
        """Let the jobs that an earlier run of the agent was promised to answer wait again, in their order."""
        for each in unfinished:
            if each.job is None:
                error = JobError(Code.INTERNAL, "the stored request cannot be read by this version of the agent")
                await self._outbox.finish(_refused(Refusal(each.key, Reply(), error)), Reply(), repeatable=True)
            else:
                self._dispatcher.admit(self._ticket(each.job, each.received_at, each.attempt))
                if each.canceled:
                    self._dispatcher.cancel(each.key)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            await self._answer(delivery)
        except Exception:  # noqa: BLE001  the boundary of a message
            # A defect of ours. The message is acknowledged all the same: it would meet the same defect again.
            self._counters.broken += 1
            _log.exception("request.broke", topic=delivery.message.topic)
        delivery.ack()

    async def _answer(self, delivery: Delivery) -> None:
        message = delivery.message
        configured = self._topics.read_camera_config(message.topic)
        if configured is not None:
            self._configure(configured, message)
            return
        route = self._topics.read(message.topic)
        if route is None:
            message, route = self._from_source(message)
        if route is None:
            self._ignore("topic_not_ours", message.topic)
        elif delivery.retained:
            # Retained is what was said once, to whoever may care; a job is said now, to be answered once.
            self._ignore("retained", message.topic)
        elif route.kind is Kind.CANCEL:
            await self._cancel(route, read_cancel(message))
        else:
            made_id = self._new_id()
            defaults = self._cameras.defaults(route.camera, route.client) if route.camera else Defaults()
            request = read_request(message, route, self._topics, self._limits, made_id, defaults)
            if route.camera and isinstance(request, Refusal) and "vision" not in self._dispatcher.loads:
                # Whatever else is wrong with it: to mend that would not help.
                request = replace(request, error=JobError(Code.UNSUPPORTED, NO_VISION))
            stored = delivery.qos > 0 or route.camera is None or request.key.id != made_id
            await self._admit(request, made_id, stored=stored)

    def _configure(self, camera: str, message: Inbound) -> None:
        problem = self._cameras.tell(camera, message.payload)
        if problem is None:
            _log.info("camera.configured", camera=camera)
        else:
            self._counters.ignored += 1
            _log.warning("camera.config_ignored", camera=camera, why=problem)

    def _from_source(self, message: Inbound) -> tuple[Inbound, Route | None]:
        """Read a message of somebody else's; of it, the frame alone means something to us."""
        routes = (source.read(message.topic) for source in self._sources)
        route = next((route for route in routes if route is not None), None)
        if route is None or not is_frame(message.payload):
            return message, None
        return Inbound(message.topic, message.payload), route

    def _ignore(self, why: str, topic: str) -> None:
        self._counters.ignored += 1
        _log.warning("request.ignored", why=why, topic=topic)

    async def _cancel(self, route: Route, job_id: str | None) -> None:
        if job_id is None:
            self._counters.ignored += 1
            _log.warning("cancel.ignored", why="no_id", client=route.client)
            return
        key = Key(route.client, job_id)
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
            case Receipt.NEW if self._dispatcher.knows(key):
                self._dispatcher.cancel(key)  # it was never to be stored
            case Receipt.NEW:
                self._counters.ignored += 1
                _log.warning("cancel.ignored", why="unknown_id", client=key.client, id=key.id)

    async def _admit(self, request: Job | Refusal, made_id: str, *, stored: bool) -> None:
        if isinstance(request, Refusal):
            await self._refuse(request, made_id, stored=stored)
            return
        decision = self._dispatcher.decide(request)
        if isinstance(decision, JobError):
            await self._refuse(_refusal(request, decision), made_id, stored=stored)
            return
        refused = self._dispatcher.hold(request, decision)
        if refused is not None:
            await self._refuse(_refusal(request, refused), made_id, stored=stored)
            return
        received_at = time.time()
        try:
            receipt = await self._keep(request, received_at) if stored else Receipt.NEW
        except SpoolError as error:
            await self._refuse_unstored(request.key, request.reply, request.camera, error)
            return
        finally:
            self._dispatcher.release(request, decision)
        if receipt is None:
            await self._refuse(_refusal(request, SUPERSEDED), made_id, stored=stored)
            return
        self._settle(receipt, request.key)
        if receipt is Receipt.NEW:
            self._counters.accepted += 1
            self._dispatcher.admit(self._ticket(request, received_at, 1, stored=stored))

    async def _keep(self, job: Job, received_at: float) -> Receipt | None:
        """Write a job to disk; None for a frame that a newer one overtook on the way there."""
        if job.frame is None:
            return await self._spool.accept(job, received_at)
        camera = (job.client, job.camera)
        if not await self._to_disk.enter(camera):
            return None
        try:
            return await self._spool.accept(job, received_at)
        finally:
            self._to_disk.leave(camera)

    async def _refuse(self, refusal: Refusal, made_id: str, *, stored: bool) -> None:
        final = _refused(refusal)
        if not stored:
            await self._outbox.deliver_unstored(final, refusal.reply)
            receipt = Receipt.NEW
        else:
            try:
                receipt = await self._outbox.refuse(final, refusal.reply, repeatable=refusal.key.id != made_id)
            except SpoolError as broken:
                await self._refuse_unstored(refusal.key, refusal.reply, refusal.camera, broken)
                return
            self._settle(receipt, refusal.key)
        if receipt is Receipt.NEW:
            code = str(refusal.error.code)
            self._counters.finished[code] += 1
            _log.info("job.refused", client=refusal.key.client, id=refusal.key.id, code=code)

    async def _refuse_unstored(self, key: Key, reply: Reply, camera: str | None, broken: SpoolError) -> None:
        """Refuse what cannot be written down: the answer goes out from memory, before the acknowledgement."""
        _log.error("spool.failed", client=key.client, id=key.id, error=str(broken))
        try:
            known = await self._spool.known(key)
        except SpoolError:
            known = Receipt.RUNNING if self._dispatcher.knows(key) else Receipt.NEW
        if known is not Receipt.NEW:
            return  # it has its final, or will have: this is a repeat, and can be repeated
        error = JobError(Code.INTERNAL, f"this box cannot store jobs now: {broken}", retry_after_s=30.0)
        await self._outbox.deliver_unstored(_refused(Refusal(key, reply, error, camera)), reply)

    def _settle(self, receipt: Receipt, key: Key) -> None:
        if receipt is not Receipt.NEW:
            self._counters.duplicates += 1
            _log.info("request.repeated", client=key.client, id=key.id, known_as=str(receipt))
        self._outbox.wake()

    def _ticket(self, job: Job, received_at: float, attempt: int, *, stored: bool = True) -> Ticket:
        """Place a job's wall-clock arrival on the monotonic clock, which deadlines are measured by."""
        now = asyncio.get_running_loop().time()
        received = now - max(0.0, time.time() - received_at)
        deadline = None if job.deadline_s is None else received + job.deadline_s
        return Ticket(job, received, deadline, attempt, stored=stored)


def _refusal(job: Job, error: JobError) -> Refusal:
    return Refusal(job.key, job.reply, error, job.camera)


def _refused(refusal: Refusal) -> Final:
    error = refusal.error
    return Final(
        refusal.key,
        Outcome.CANCELED if error.code is Code.SUPERSEDED else Outcome.REJECTED,
        placement=Placed(reason=str(error.code)),
        error=error,
        notice=refusal.reply.notice,
        camera=refusal.camera,
    )
