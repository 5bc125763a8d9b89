"""The MQTT session: one client identity over any number of connections."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import random as system_random

import structlog

from agent.backoff import Backoff
from agent.bus import security
from agent.bus.base import BusError, Delivery, Stats, Subscription
from agent.bus.connection import Connection, packet_size
from agent.bus.flow import Inflow
from agent.bus.network import ConnectFailed
from agent.bus.versions import VersionChoice
from agent.contract.messages import Outgoing
from agent.contract.topics import Topics
from agent.settings import Mqtt

# A broker that restarts is back within a second; one that is down for a day should not be asked 100,000 times.
_FIRST_DELAY_S, _MOST_DELAY_S = 0.5, 60.0
# Only a connection that lasted shows that the trouble is over. Two boxes of one name, each of which the broker
# drops for the other, would never back off otherwise.
_LASTED_S = 10.0
# QoS 1 sends that wait for the window: the states of a burst of jobs, some 200 bytes each.
_MOST_WAITING = 1000
# Of the goodbye, at shutdown: a round trip and a broker's commit. If it does not arrive, the will says the same.
_GOODBYE_S = 2.0

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _Underway:
    """A QoS 1 message that is not settled: one to deliver, or one sent without anybody waiting for it."""

    out: Outgoing
    delivered: asyncio.Future[None] | None = None

    def settle(self, failure: str | None) -> None:
        """Tell whoever waits, if somebody still does."""
        if self.delivered is None:
            if failure is not None:
                _log.warning("mqtt.send_refused", reason=failure)
        elif not self.delivered.done():
            if failure is None:
                self.delivered.set_result(None)
            else:
                self.delivered.set_exception(BusError(failure))


class MqttBus:
    """A session with a broker, kept over reconnects by both sides.

    Args:
        settings: the broker and how to speak with it.
        topics: this node's, for where to say ``online``.
        subscriptions: what to subscribe to.
        receive: called on the event loop for each message, before the next; must not block. An exception is a
            defect and ends `run`.
        on_connected: called on the event loop each time the session is online.
        on_new_session: awaited where the broker remembers nothing of us, before anything can arrive.
        random: for the jitter of reconnects, as `random.random`.

    Raises:
        BusError: a file named in the settings cannot be used.

    """

    def __init__(
        self,
        settings: Mqtt,
        topics: Topics,
        subscriptions: Sequence[Subscription],
        *,
        receive: Callable[[Delivery], None],
        on_connected: Callable[[], object] = lambda: None,
        on_new_session: Callable[[], Awaitable[None]] | None = None,
        random: Callable[[], float] = system_random,
    ) -> None:
        security.check(settings)
        self.stats = Stats()
        self._settings = settings
        self._topics = topics
        self._subscriptions = subscriptions
        self._receive = receive
        self._on_connected = on_connected
        self._on_new_session = on_new_session
        self._backoff = Backoff(_FIRST_DELAY_S, _MOST_DELAY_S, random)
        self._choice = VersionChoice(settings.protocol)
        self._inflow = Inflow(self._room_made)
        self._has_room = asyncio.Event()
        self._connection: Connection | None = None
        self._online = False
        self._was_online = False
        self._generation = 0
        self._max_packet: int | None = None
        self._closing = asyncio.Event()
        # Every delivery in progress, oldest first; it survives connections.
        self._deliveries: dict[_Underway, None] = {}
        # What the window has not yet let onto this connection, sends among deliveries: a job's `started` stays
        # before its `final`.
        self._waiting: deque[_Underway] = deque()

    def __repr__(self) -> str:
        state = "online" if self._online else "offline"
        return f"<MqttBus {state}, {self._connection!r}, {len(self._deliveries)} to deliver, {self._inflow!r}>"

    @property
    def connected(self) -> bool:
        """See `Bus`."""
        return self._online

    @property
    def congested(self) -> bool:
        """See `Bus`."""
        return self._online and self._connection is not None and self._connection.congested

    @property
    def max_packet(self) -> int | None:
        """See `Bus`; what the last connection's broker said."""
        return self._max_packet

    def send(self, out: Outgoing) -> bool:
        """See `Bus`."""
        try:
            sent = self._sent(out)
        except BusError as error:
            _log.warning("mqtt.send_refused", reason=str(error))
            sent = False
        self.stats.dropped_sends += not sent
        return sent

    async def deliver(self, out: Outgoing) -> None:
        """See `Bus`."""
        delivered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        underway = _Underway(out, delivered)
        self._deliveries[underway] = None
        if self._online:
            self._waiting.append(underway)
            self._publish_waiting()
        try:
            await delivered
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # it is published, or not connected
                self._waiting.remove(underway)
            raise
        finally:
            del self._deliveries[underway]

    async def run(self) -> None:
        """See `Bus`. Returns after `close`; raises what ``receive`` or ``on_connected`` raised."""
        while not self._closing.is_set():
            await self._room()
            try:
                reason = await self._stay_connected()
            except ConnectFailed as failure:
                self._judge_version(failure)
                log, event, reason = _log.error, "mqtt.connect_failed", failure.reason
            else:
                log, event = _log.warning, "mqtt.disconnected"
            if self._closing.is_set():
                return
            delay_s = self._backoff.next()
            log(event, reason=reason, generation=self._generation, retry_in_s=round(delay_s, 2))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._closing.wait()

    async def close(self) -> None:
        """See `Bus`. What is still being delivered stays so, for its caller to cancel."""
        self._closing.set()
        self._has_room.set()
        connection, online = self._connection, self._online
        self._online = False  # so that nothing is published after the goodbye
        if connection is None:
            return
        if online:
            said: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            goodbye = _Underway(self._status("offline"), said)
            connection.publish(goodbye.out, goodbye.settle)
            await connection.first(said, timeout_s=_GOODBYE_S)
        await connection.leave()

    async def _stay_connected(self) -> str:
        """Hold one connection from its begin to its end; return why it ended."""
        self._generation += 1
        connection = self._connection = Connection(
            self._settings,
            self._choice.version,
            client_id=f"edge-slm-{self._topics.node}",
            will=self._status("offline"),
            receive=self._receive,
            inflow=self._inflow,
            stats=self.stats,
        )
        try:
            connack = await connection.accepted()
            self._choice.worked()
            self._max_packet = connack.max_packet
            if self._on_new_session is not None and not connack.session_present:
                await self._on_new_session()
            await connection.subscribe(self._subscriptions)
            if not self._closing.is_set():
                self._go_online(connection, session_present=connack.session_present)
            since = asyncio.get_running_loop().time()
            reason = await asyncio.shield(connection.closed)
            if asyncio.get_running_loop().time() - since > _LASTED_S:
                self._backoff.reset()
            return reason
        finally:
            self._online = False
            self._connection = None
            self._waiting.clear()
            await connection.end()

    def _go_online(self, connection: Connection, *, session_present: bool) -> None:
        _log.info(
            "mqtt.connected",
            protocol=self._choice.version,
            session_present=session_present,
            generation=self._generation,
        )
        self.stats.reconnects += self._was_online
        self._online = self._was_online = True
        self._publish(connection, _Underway(self._status("online")))
        self._on_connected()  # first, so that what is sent there does not wait behind a backlog
        self._waiting.extend(self._deliveries)
        self._publish_waiting()

    def _sent(self, out: Outgoing) -> bool:
        connection = self._connection
        if connection is None or not self._online:
            return False
        self._refuse_oversize(out)
        if out.qos == 0:
            return not connection.congested and connection.write(out)
        if len(self._waiting) >= _MOST_WAITING:
            return False
        self._waiting.append(_Underway(out))
        self._publish_waiting()
        return True

    def _publish_waiting(self) -> None:
        """Publish what waits, in order, as far as the window allows."""
        connection = self._connection
        while connection is not None and self._online and self._waiting and connection.window_free:
            underway = self._waiting[0]
            try:
                if not self._publish(connection, underway):
                    return  # the connection is about to end; the next one takes it
            except BusError as error:
                underway.settle(str(error))
            self._waiting.popleft()

    def _publish(self, connection: Connection, underway: _Underway) -> bool:
        self._refuse_oversize(underway.out)
        return connection.publish(underway.out, partial(self._settle, underway))

    def _settle(self, underway: _Underway, failure: str | None) -> None:
        underway.settle(None if failure is None else f"the broker refused {underway.out.topic}: {failure}")
        self._publish_waiting()

    def _refuse_oversize(self, out: Outgoing) -> None:
        size = packet_size(out)
        if self._max_packet is not None and size > self._max_packet:
            raise BusError(f"the message has {size:,} bytes, and the broker takes at most {self._max_packet:,}")

    def _judge_version(self, failure: ConnectFailed) -> None:
        if failure.version == "refused":
            self._choice.refused()
        elif failure.version == "suspected":
            self._choice.suspected()

    async def _room(self) -> None:
        """Wait until more may be received. A box that cannot store what it has is better offline: it says so."""
        while self._inflow.over and not self._closing.is_set():
            self._has_room.clear()
            await self._has_room.wait()

    def _room_made(self) -> None:
        self._has_room.set()
        if self._connection is not None:
            self._connection.wake()

    def _status(self, text: str) -> Outgoing:
        return Outgoing(self._topics.status, text.encode(), retain=True)
