"""The MQTT session: one client identity over any number of connections."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from random import random as system_random

import structlog

from agent.bus import security
from agent.bus.base import BusError, Delivery, Shorten, Stats, Subscription
from agent.bus.connection import Connection
from agent.bus.events import ConnectFailed, End, SubscriptionRefused
from agent.bus.flow import Inflow
from agent.bus.outflow import Outflow
from agent.bus.patience import Patience
from agent.bus.versions import VersionChoice
from agent.contract.messages import Outgoing
from agent.contract.topics import Topics
from agent.settings import Mqtt

# How long a connection is kept that lets us answer but not be asked: for 32 finals at a time and a slow link. Each end
# of it is a new try at the subscription.
_ANSWERING_S = 10.0
# A link that is cut looks as a broker does that ends the connection upon a filter it does not allow. Twice in a row is
# hardly chance, and thrice would be too often: finals that were under way each time would be taken for too large.
_CUT_UPON_OPTIONAL = 2
# Of the goodbye, at shutdown: a round trip and a broker's commit. If it does not arrive, the will says the same.
_GOODBYE_S = 2.0

_log = structlog.get_logger(__name__)


class MqttBus:
    """A session with a broker, kept over reconnects by both sides.

    Args:
        settings: the broker and how to speak with it.
        topics: this node's, for where to say ``online``.
        subscriptions: what to subscribe to. Those that are optional are asked for once the others are there, and where
            the broker ends the connection upon them not any more.
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
        self._subscriptions = [each for each in subscriptions if not each.optional]
        self._optional = [each for each in subscriptions if each.optional]
        self._cut_upon_optional = 0
        self._refusal_told = False
        self._receive = receive
        self._on_connected = on_connected
        self._on_new_session = on_new_session
        self._client_id = f"edge-slm-{topics.node}"
        self._patience = Patience(self._client_id, random)
        self._outflow = Outflow(self.stats)
        self._choice = VersionChoice(settings.protocol)
        self._inflow = Inflow(self._room_made)
        self._has_room = asyncio.Event()
        self._connection: Connection | None = None
        self._online = False
        self._was_online = False
        self._generation = 0
        self._closing = asyncio.Event()

    def __repr__(self) -> str:
        state = "online" if self._online else "offline"
        return f"<MqttBus {state}, {self._connection!r}, {self._outflow!r}, {self._inflow!r}>"

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
        """See `Bus`."""
        return self._outflow.max_packet

    def send(self, out: Outgoing) -> bool:
        """See `Bus`."""
        try:
            sent = self._sent(out)
        except BusError as error:
            _log.warning("mqtt.send_refused", reason=str(error))
            sent = False
        self.stats.dropped_sends += not sent
        return sent

    async def deliver(self, out: Outgoing, shorten: Shorten | None = None) -> None:
        """See `Bus`."""
        await self._outflow.deliver(out, shorten)

    async def hand_over(self, out: Outgoing, shorten: Shorten | None = None) -> bool:
        """See `Bus`."""
        return await self._outflow.hand_over(out, shorten)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions of the session, if the broker is there: those of an earlier configuration stay in it."""
        if self._connection is not None:
            self._connection.unsubscribe(filters)

    async def run(self) -> None:
        """See `Bus`. Returns after `close`; raises what ``receive`` or ``on_connected`` raised."""
        while not self._closing.is_set():
            await self._room()
            try:
                end, lasted_s = await self._stay_connected()
            except ConnectFailed as failure:
                self._judge_version(failure)
                log, event, reason = _log.error, "mqtt.connect_failed", failure.reason
                delay_s = 0.0 if failure.version == "doubted" else self._patience.after_failure()
            else:
                self._choice.ended()
                log, event = (_log.error if end.cause == "taken_over" else _log.warning), "mqtt.disconnected"
                delay_s, reason = self._patience.after(end, lasted_s)
            if self._closing.is_set():
                return
            log(event, reason=reason, generation=self._generation, retry_in_s=round(delay_s, 2))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._closing.wait()

    async def close(self) -> None:
        """See `Bus`. What is still being delivered stays so, for its caller to cancel."""
        self._closing.set()
        self._has_room.set()
        connection, online = self._connection, self._online
        self._online = False
        self._outflow.close(None)  # so that nothing is published after the goodbye
        if connection is None:
            return
        if online:
            said: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            connection.publish(self._status("offline"), lambda _refusal: said.set_result(None))
            await connection.first(said, timeout_s=_GOODBYE_S)
        await connection.leave()

    async def _stay_connected(self) -> tuple[End, float]:
        """Hold one connection from its begin to its end; return why it ended, and how long it was online."""
        self._generation += 1
        connection = self._connection = Connection(
            self._settings,
            self._choice.version,
            client_id=self._client_id,
            will=self._status("offline"),
            receive=self._receive,
            inflow=self._inflow,
            stats=self.stats,
        )
        try:
            connack = await connection.accepted()
            if not self._choice.accepted():
                raise ConnectFailed("the broker answers MQTT 3.1.1, and is asked for MQTT 5 once more", "doubted")
            self._outflow.accepted(connection, connack.max_packet)
            if self._on_new_session is not None and not connack.session_present:
                await self._on_new_session()
            try:
                await connection.subscribe(self._subscriptions)
            except SubscriptionRefused:
                await self._answer(connection)
                raise
            if not self._closing.is_set():
                self._go_online(session_present=connack.session_present)
            since = asyncio.get_running_loop().time()
            if self._optional:
                await self._ask_for_optional(connection)
            end = await asyncio.shield(connection.closed)
            if self._outflow.close(end):
                self._patience.learnt()
            return end, asyncio.get_running_loop().time() - since
        finally:
            self._online = False
            self._outflow.close(None)
            self._connection = None
            await connection.end()

    async def _ask_for_optional(self, connection: Connection) -> None:
        """Subscribe to what the session does without; in a packet of its own, which nothing else depends on."""
        try:
            await connection.subscribe(self._optional)
        except SubscriptionRefused as refusal:
            reason = refusal.reason
        except ConnectFailed:
            if not connection.closed.done() or self._closing.is_set():
                return  # slow, or our own doing
            if connection.closed.result().cause == "lost":
                self._cut_upon_optional += 1
            if self._cut_upon_optional < _CUT_UPON_OPTIONAL:
                return
            names = ", ".join(each.filter for each in self._optional)
            reason = f"the broker ends the connection upon the subscription to {names}: allow it in the broker's ACL"
            self._optional = []
        else:
            self._cut_upon_optional = 0
            return
        if not self._refusal_told:
            _log.warning("mqtt.subscription_refused", reason=f"{reason}, and restart; until then the box does without")
            self._refusal_told = True

    async def _answer(self, connection: Connection) -> None:
        """Let out what is owed: a box that cannot be asked can still answer what it was asked before."""
        if self._outflow.owes and not self._closing.is_set():
            self._outflow.open()
            self._outflow.resume()
            await connection.first(connection.closed, timeout_s=_ANSWERING_S)
            if connection.closed.done():
                self._outflow.close(connection.closed.result())

    def _go_online(self, *, session_present: bool) -> None:
        _log.info(
            "mqtt.connected",
            protocol=self._choice.version,
            session_present=session_present,
            generation=self._generation,
        )
        self.stats.reconnects += self._was_online
        self._online = self._was_online = True
        self._outflow.open()
        self.send(self._status("online"))
        self._on_connected()  # first, so that what is sent there does not wait behind a backlog
        self._outflow.resume()

    def _sent(self, out: Outgoing) -> bool:
        connection = self._connection
        if connection is None or not self._online:
            return False
        if out.qos == 0:
            self._outflow.refuse_oversize(out)
            return not connection.congested and connection.write(out)
        return self._outflow.send(out)

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
