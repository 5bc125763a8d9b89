"""What a message bus is to the rest of the house."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

from agent.contract.messages import Inbound, Outgoing
from agent.errors import UserError


class BusError(UserError):
    """The bus cannot do what was asked, now or later."""


class TryLaterError(BusError):
    """A message was not delivered now, and may well be at another time."""


class Subscription(NamedTuple):
    """A topic filter to subscribe to.

    Attributes:
        retained: whether what was published before, and retained, is wanted too. MQTT 3.1.1 sends it in any case.
        optional: whether the session does without it where the broker refuses it.

    """

    filter: str
    retained: bool = False
    optional: bool = False


class Shorten(Protocol):
    """Makes a message's payload smaller for a broker that does not take it whole."""

    def __call__(self, most: int, max_packet: int) -> bytes:
        """Return a payload of at most ``most`` bytes, or the shortest there is; the whole packet is the other limit."""


class Settle(Protocol):
    """Ends a delivery."""

    def __call__(self, *, safe: bool) -> None:
        """Take note that the broker may forget the message, or, if it is not ``safe``, that it has to keep it."""


class Delivery:
    """One received message, to be acknowledged by its receiver.

    Args:
        message: what was received.
        qos: by which it came; at 0 the broker has forgotten it already.
        retained: whether it was published before we subscribed, and so is not fresh.
        release: called once the message's content is not held any more.
        settle: called at the first `ack` or `drop`, with whether the broker may forget it.

    """

    __slots__ = ("_release", "_settle", "message", "qos", "retained")

    def __init__(
        self, message: Inbound, *, qos: Literal[0, 1], retained: bool, release: Callable[[], None], settle: Settle
    ) -> None:
        self.message = message
        self.qos = qos
        self.retained = retained
        self._release: Callable[[], None] | None = release
        self._settle: Settle | None = settle

    def __repr__(self) -> str:
        state = "settled" if self._settle is None else "held"
        return f"<Delivery {self.message.topic} {len(self.message.payload):,} bytes {state}>"

    def ack(self) -> None:
        """Say that the message is safe, or needs no safety: the broker may forget it. Idempotent.

        This or `drop` is to be called for every delivery, at QoS 0 and after a reconnect too: until then the message
        counts against what is read at all. On the event loop's thread.
        """
        self._end(safe=True)

    def drop(self) -> None:
        """Forget the message here; at QoS 1 the broker keeps it, and everything after it, for the next session."""
        self._end(safe=False)

    def lighten(self) -> None:
        """Let go of the payload, so that it does not count against what is read; `ack` or `drop` is still to come."""
        self.message = replace(self.message, payload=b"")
        self._let_go()

    def _let_go(self) -> None:
        if self._release is not None:
            release, self._release = self._release, None
            release()

    def _end(self, *, safe: bool) -> None:
        self._let_go()
        if self._settle is not None:
            settle, self._settle = self._settle, None
            settle(safe=safe)


@dataclass(slots=True)
class Stats:
    """Counters since the start.

    Attributes:
        shortened: deliveries that went out with a shorter payload than they had.
        undelivered: deliveries that can never arrive as they are.

    """

    received: int = 0
    malformed: int = 0
    reconnects: int = 0
    dropped_sends: int = 0
    shortened: int = 0
    undelivered: int = 0


class Bus(Protocol):
    """A session with a broker."""

    @property
    def connected(self) -> bool:
        """Whether requests can arrive and answers can leave now: connected and subscribed."""

    @property
    def congested(self) -> bool:
        """Whether the broker takes QoS 0 messages slower than they are sent."""

    @property
    def max_packet(self) -> int | None:
        """Largest MQTT packet to send, in bytes with topic and headers, as said or learnt; None where unknown."""

    @property
    def stats(self) -> Stats:
        """Counters since the start."""

    def send(self, out: Outgoing) -> bool:
        """Publish without waiting, or not at all; never raises. A message that is not a valid one is logged.

        Returns False if nothing was kept: not connected, congested (QoS 0), too many waiting for their PUBACK
        (QoS 1), or not valid (QoS 0) or too large. What was kept is lost with the connection.
        """

    async def deliver(self, out: Outgoing, shorten: Shorten | None = None) -> None:
        """Publish at QoS 1 and return when the broker has it, however many connections that takes.

        Order is kept among deliveries, and with sends at QoS 1, while the connection lasts. A message may arrive
        more than once. The caller bounds the time; a cancelled delivery may still arrive.

        Args:
            out: the message.
            shorten: makes its payload fit, on a connection whose broker does not take it whole.

        Raises:
            TryLaterError: the broker does not take it now, or ends the connection upon it.
            BusError: it can never be delivered as it is: invalid, too large, or refused by the broker.

        """

    async def hand_over(self, out: Outgoing, shorten: Shorten | None = None) -> bool:
        """Publish at QoS 1 on the present connection; return whether it is on its way there.

        A message that is acknowledged afterwards is forgotten by the broker after it has this one: one connection
        keeps the order. Waiting for the PUBACK would not do, as none is read while too much is unacknowledged.

        Raises:
            BusError: it can never be published as it is.

        """

    async def run(self) -> None:
        """Connect, subscribe and stay connected, until cancelled or closed."""

    async def close(self) -> None:
        """Publish ``offline`` and leave; the broker keeps the session. Idempotent."""
