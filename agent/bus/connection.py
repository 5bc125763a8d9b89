"""One network connection as the event loop sees it, from CONNECT to its end."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import structlog

from agent.bus.acks import AckOrder, Receipt
from agent.bus.base import Delivery, Stats, Subscription
from agent.bus.events import Connack, ConnectFailed, End, Refusal, SubscriptionRefused
from agent.bus.flow import Inflow, Watermarks
from agent.bus.handover import Handover
from agent.bus.network import Network
from agent.bus.versions import Version
from agent.contract.messages import Inbound, Outgoing
from agent.settings import Mqtt

# An old broker may leave a CONNECT of MQTT 5 without an answer (amqtt does). A live one answers within a round
# trip and a login; 5 s leave room for both over a bad mobile link.
CONNACK_WAIT_S = 5.0
# Behind a kept session's backlog of large frames, SUBACK may take its time.
_SUBACK_WAIT_S = 30.0
# After an end is asked for. A thread that hangs in a name look-up is left to itself: it is a daemon, and closes
# its socket when it is back.
_END_WAIT_S = 2.0
# QoS 1 messages under way to the broker, less if it announces less: 1,000 a second at a round trip of 100 ms.
_WINDOW = 100
# QoS 0 bytes not yet written to the socket. 64 streaming jobs make about 250 KiB of chunks a second: two seconds of
# a stalled link before words are dropped, besides what the kernel holds.
_OUT_HIGH, _OUT_LOW = 512 << 10, 128 << 10

_log = structlog.get_logger(__name__)

Settled: TypeAlias = Callable[[Refusal | None], None]


class Connection:
    """One network connection. All but its `Network` happens on the event loop's thread.

    Every connection has a client of its own. A client kept over reconnects would carry packet identifiers into
    the next connection, where each belongs to another message: a late ack would acknowledge, and so lose, a job
    that was never stored. (To resend under the old identifiers, as the standard has it for a resumed session,
    matters at QoS 2 alone: at QoS 1 the receiver keeps no state of them.)

    Args:
        settings: where and how to connect.
        version: the MQTT version to speak.
        client_id: names the session at the broker.
        will: what the broker publishes when this connection breaks.
        receive: called for each message; an exception becomes that of `closed`.
        inflow: the session's bound on what is held.
        stats: the session's counters.

    Attributes:
        closed: resolves at the connection's end, to why it ended.

    """

    def __init__(
        self,
        settings: Mqtt,
        version: Version,
        *,
        client_id: str,
        will: Outgoing,
        receive: Callable[[Delivery], None],
        inflow: Inflow,
        stats: Stats,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[End] = loop.create_future()
        self._version = version
        self._receive = receive
        self._inflow = inflow
        self._stats = stats
        self._acks = AckOrder()
        self._window = _WINDOW
        self._in_flight: dict[int, Settled] = {}
        self._unwritten: dict[int, int] = {}
        self._out = Watermarks(_OUT_HIGH, _OUT_LOW)
        self._opened: asyncio.Future[None] = loop.create_future()
        self._connack: asyncio.Future[Connack | ConnectFailed] = loop.create_future()
        self._subacks: dict[int, asyncio.Future[list[bool]]] = {}
        self._network = Network(
            settings,
            version,
            client_id=client_id,
            will=will,
            inflow=inflow,
            post=Handover(loop, self._fail).post,
            events=self,
        )
        self._network.start()

    def __repr__(self) -> str:
        state = "closed" if self.closed.done() else "open" if self._connack.done() else "opening"
        return f"<Connection MQTT {self._version} {state}, {len(self._in_flight)} in flight, {self._acks!r}>"

    @property
    def congested(self) -> bool:
        """Whether QoS 0 messages pile up before the socket."""
        return self._out.over

    @property
    def window_free(self) -> bool:
        """Whether one more QoS 1 message may be under way."""
        return len(self._in_flight) < self._window

    async def accepted(self) -> Connack:
        """Wait for the broker's acceptance.

        Raises:
            ConnectFailed: with the reason.

        """
        await self.first(self._opened)  # bounded by the resolver's patience, and 5 s for each address
        if not self._opened.done():
            raise ConnectFailed(self.closed.result().reason)
        await self.first(self._connack, timeout_s=CONNACK_WAIT_S)
        if self._connack.done():
            answer = self._connack.result()
            if isinstance(answer, ConnectFailed):
                raise answer
            self._window = min(_WINDOW, answer.receive_maximum)
            return answer
        said = f"MQTT {self._version}"
        if self.closed.done():
            raise ConnectFailed(
                f"the broker closed the connection upon {said}: {self.closed.result().reason}", "suspected"
            )
        raise ConnectFailed(f"the broker did not answer {said} within {CONNACK_WAIT_S:g} s", "suspected")

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Subscribe at QoS 1.

        Raises:
            SubscriptionRefused: the broker refused a filter.
            ConnectFailed: it did not answer.

        """
        answer: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
        mid = self._network.subscribe(subscriptions)
        if mid is not None:
            self._subacks[mid] = answer
        await self.first(answer, timeout_s=_SUBACK_WAIT_S)
        if not answer.done():
            raise ConnectFailed(
                self.closed.result().reason if self.closed.done() else "the broker did not answer SUBSCRIBE"
            )
        answers = zip(subscriptions, answer.result(), strict=False)
        names = ", ".join(each.filter for each, is_refused in answers if is_refused)
        if names:
            raise SubscriptionRefused(f"the broker refuses the subscription to {names}: allow it in the broker's ACL")

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions that an earlier connection of this session made. Nobody waits for the UNSUBACK."""
        self._network.unsubscribe(filters)

    def write(self, out: Outgoing) -> bool:
        """Hand a message to the network at QoS 0; return whether it was taken.

        Raises:
            BusError: the message is not a valid one.

        """
        mid = self._network.publish(out, 0)
        if mid is not None:
            self._unwritten[mid] = packet_size(out)
            self._out.add(self._unwritten[mid])
        return mid is not None

    def publish(self, out: Outgoing, settled: Settled) -> bool:
        """Hand a message to the network at QoS 1; return whether it was taken.

        Args:
            out: the message.
            settled: called at PUBACK, with None, or with the broker's refusal.

        Raises:
            BusError: the message is not a valid one.

        """
        mid = self._network.publish(out, 1)
        if mid is not None:
            self._in_flight[mid] = settled
        return mid is not None

    def wake(self) -> None:
        """Have the network look at the inflow again."""
        self._network.wake()

    async def first(self, answer: asyncio.Future[Any], *, timeout_s: float | None = None) -> None:
        """Wait for an answer, the connection's end or the timeout, whichever comes first."""
        await asyncio.wait({answer, self.closed}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def leave(self) -> None:
        """Disconnect cleanly, so that the will is not published; the broker keeps the session."""
        self._network.disconnect()
        await asyncio.wait({self.closed}, timeout=_END_WAIT_S)
        await self.end()

    async def end(self) -> None:
        """Close the socket, as a lost connection would, and wait for the network's end. Idempotent."""
        self._network.stop()
        if not self.closed.done():  # a wait is a chance to be cancelled, and there may be nothing to wait for
            await asyncio.wait({self.closed}, timeout=_END_WAIT_S)
        if self.closed.done():
            self._network.join()

    def _fail(self, error: Exception) -> None:
        if not self.closed.done():
            self.closed.set_exception(error)

    def _settle(self, receipt: Receipt | None, *, safe: bool) -> None:
        if receipt is None or not safe or self.closed.done():
            return  # on another connection the packet identifier would be another message's
        for mid in self._acks.done(receipt):
            self._network.ack(mid)

    # What the network tells.

    def opened(self) -> None:
        """See `Events`."""
        self._opened.set_result(None)

    def answered(self, answer: Connack | ConnectFailed) -> None:
        """See `Events`."""
        if not self._connack.done():  # a broker that answers twice is no reason to fail
            self._connack.set_result(answer)

    def subscribed(self, mid: int, refused: list[bool]) -> None:
        """See `Events`."""
        if mid in self._subacks:  # a broker that answers twice is no reason to fail
            self._subacks.pop(mid).set_result(refused)

    def received(self, message: Inbound | None, mid: int, weight: int, retained: bool) -> None:
        """See `Events`."""
        receipt = self._acks.received(mid) if mid else None
        release, settle = partial(self._inflow.remove, weight), partial(self._settle, receipt)
        if message is None:
            self._stats.malformed += 1
            _log.warning("mqtt.message_malformed", reason="the topic is not UTF-8")
            release()
            settle(safe=True)
            return
        self._stats.received += 1
        self._receive(Delivery(message, qos=1 if mid else 0, retained=retained, release=release, settle=settle))

    def published(self, mid: int, refusal: Refusal | None) -> None:
        """See `Events`.

        After 65,535 messages an unwritten QoS 0 message and an unacknowledged QoS 1 message can bear the same
        number. The first call is then taken for the former, so that the latter is settled by the second, never
        before its PUBACK.
        """
        if refusal is None and mid in self._unwritten:
            self._out.remove(self._unwritten.pop(mid))
        elif mid in self._in_flight:
            self._in_flight.pop(mid)(refusal)

    def ended(self, end: End) -> None:
        """See `Events`."""
        if not self.closed.done():
            self.closed.set_result(end)


def packet_size(out: Outgoing) -> int:
    """Return an upper bound of the PUBLISH packet's size, in bytes, a few above the true one."""
    size = 16 + len(out.topic.encode("utf-8", "replace")) + len(out.payload)  # 16: header, lengths, identifier
    if out.correlation is not None:
        size += 3 + len(out.correlation)
    for pair in out.properties:
        size += 5 + sum(len(each.encode("utf-8", "replace")) for each in pair)
    return size
