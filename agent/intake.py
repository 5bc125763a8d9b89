"""What happens to a message: it is read, its request goes to the reception, and only then is it acknowledged."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from agent.bus import Delivery
from agent.cameras import Cameras
from agent.contract.errors import NO_VISION, Code, JobError
from agent.contract.jobs import Key
from agent.contract.messages import Inbound
from agent.contract.requests import Defaults, Limits, Refusal, is_frame, read_cancel, read_request
from agent.contract.sources import Source
from agent.contract.topics import Kind, Route, Topics
from agent.metrics import Counters
from agent.reception import Owed, Reception
from agent.spool import Spool, SpoolError

_log = structlog.get_logger(__name__)


class Intake:
    """Turns messages into jobs that wait, or into refusals.

    Messages are handled in their order of arrival up to the spool's queue, so a cancel never overtakes the
    request that it means.

    Args:
        topics: this node's topics.
        sources: topics of others on which frames arrive.
        cameras: what is asked about each camera.
        limits: the largest requests that are read.
        sees: whether the box has a vision model.
        reception: takes requests on.
        spool: keeps what is told of cameras.
        counters: of what is not answered.
        new_id: makes an id for a request without one.
        leave: ends the subscription to topic filters.

    """

    def __init__(
        self,
        topics: Topics,
        sources: Sequence[Source],
        cameras: Cameras,
        limits: Limits,
        *,
        sees: bool,
        reception: Reception,
        spool: Spool,
        counters: Counters,
        new_id: Callable[[], str],
        leave: Callable[[Sequence[str]], None],
    ) -> None:
        self._topics = topics
        self._sources = sources
        self._cameras = cameras
        self._limits = limits
        self._sees = sees
        self._reception = reception
        self._spool = spool
        self._counters = counters
        self._new_id = new_id
        self._leave = leave
        self._left: set[str] = set()
        self._unread: deque[Delivery] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def receive(self, delivery: Delivery) -> None:
        """Take a message from the bus. Once closed, drop it: the broker keeps it for the next start.

        One is read in each turn of the event loop: thirty large ones at once would hold it for a quarter of a second.
        """
        if self._closed:
            delivery.drop()
            return
        self._unread.append(delivery)
        if len(self._unread) == 1:
            asyncio.get_running_loop().call_soon(self._read_next)

    async def close(self, seconds: float) -> None:
        """Take no more messages, and finish with those that were taken; give up those that a sick disk holds up.

        Nothing is lost with them: they are not acknowledged.
        """
        self._closed = True
        while self._unread:
            self._unread.popleft().drop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()

    async def remember(self) -> None:
        """Take up what an earlier run of the agent was told of cameras."""
        for camera, policy in (await self._spool.told()).items():
            self._cameras.tell(camera, policy)

    async def forget(self) -> None:
        """Drop what was told of cameras: the session is new, and what is retained comes again.

        In a session that goes on, the broker sends what was told meanwhile among the frames that came meanwhile, in
        order; but not what was told before. That is why it is kept on disk.
        """
        self._cameras.forget()
        try:
            await self._spool.forget_cameras()
        except SpoolError as error:
            _log.error("spool.failed", error=str(error))

    def _read_next(self) -> None:
        if not self._unread:
            return  # closed meanwhile
        delivery = self._unread.popleft()
        task = asyncio.create_task(self._handle(delivery), name=f"intake {delivery.message.topic[:80]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._unread:
            asyncio.get_running_loop().call_soon(self._read_next)

    async def _handle(self, delivery: Delivery) -> None:
        safe = True
        try:
            owed = await self._answer(delivery)
            if owed is not None:
                # While many such wait for the broker, it must still be listened to.
                delivery.lighten()
                safe = await self._reception.hand_over(owed, qos=delivery.qos)
        except Exception:  # noqa: BLE001  the boundary of a message
            # A defect of ours. The message is acknowledged all the same: it would meet the same defect again.
            self._counters.broken += 1
            _log.exception("request.broke", topic=delivery.message.topic)
        if safe:
            delivery.ack()
        else:
            delivery.drop()  # its connection has ended, and the next one brings it again

    async def _answer(self, delivery: Delivery) -> Owed | None:
        message = delivery.message
        configured = self._topics.read_camera_config(message.topic)
        if configured is not None:
            await self._configure(configured, message.payload)
            return None
        route = self._topics.read(message.topic)
        if route is None and (route := self._read_source(message.topic)) is not None:
            # Of somebody else's message, the frame alone means something to us.
            message = Inbound(message.topic, message.payload)
            if not is_frame(message.payload):
                self._counters.ignored += 1
                _log.debug("request.ignored", why="no_frame", topic=message.topic)
                return None
        if route is None:
            route = self._read_former_pool(message.topic)
        if route is None:
            self._ignore("topic_not_ours", message.topic)
        elif delivery.retained:
            # Retained is what was said once, to whoever may care; a job is said now, to be answered once.
            self._ignore("retained", message.topic)
        elif route.kind is Kind.CANCEL:
            await self._cancel(route, message)
        else:
            return await self._request(route, message, delivery.qos)
        return None

    def _read_source(self, topic: str) -> Route | None:
        return next((found for each in self._sources if (found := each.read(topic)) is not None), None)

    def _read_former_pool(self, topic: str) -> Route | None:
        """Read a request of a pool that the box has left since its session began: it is answered all the same.

        The session still has the pool's subscription, and the broker gives what it gave us to nobody else.
        """
        route = self._topics.read_any(topic)
        if route is not None and route.pool is not None and route.pool not in self._left:
            self._left.add(route.pool)
            _log.info("pool.left", pool=route.pool)
            self._leave(self._topics.shared(route.pool))
        return route

    async def _request(self, route: Route, message: Inbound, qos: int) -> Owed | None:
        defaults = Defaults() if route.camera is None else self._cameras.defaults(route.camera, route.client)
        request = read_request(message, route, self._topics, self._limits, self._new_id(), defaults)
        stored = qos > 0 or request.named or not is_frame(message.payload)
        if not isinstance(request, Refusal):
            return await self._reception.admit(request, stored=stored)
        if route.camera is not None and route.pool is None and not self._sees:
            # Whatever else is wrong with it: to mend that would not help.
            request = replace(request, error=JobError(Code.UNSUPPORTED, NO_VISION))
        return await self._reception.refuse(request, stored=stored)

    async def _cancel(self, route: Route, message: Inbound) -> None:
        job_id = read_cancel(message)
        if job_id is None:
            self._counters.ignored += 1
            _log.warning("cancel.ignored", why="no_id", client=route.client)
        else:
            await self._reception.cancel(Key(route.client, job_id), of_pool=route.pool is not None)

    async def _configure(self, camera: str, payload: bytes) -> None:
        problem = self._cameras.tell(camera, payload)
        if problem is not None:
            self._counters.ignored += 1
            _log.warning("camera.config_ignored", camera=camera, why=problem)
            return
        _log.info("camera.configured", camera=camera)
        try:
            await self._spool.tell(camera, payload.strip())
        except SpoolError as error:
            _log.error("spool.failed", error=str(error))

    def _ignore(self, why: str, topic: str) -> None:
        self._counters.ignored += 1
        _log.warning("request.ignored", why=why, topic=topic)
