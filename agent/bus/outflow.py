"""What is under way to the broker at QoS 1, over any number of connections."""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, replace
from functools import partial

import structlog

from agent.bus.base import BusError, Shorten, Stats, TryLaterError
from agent.bus.connection import Connection, packet_size
from agent.bus.events import End, Refusal
from agent.bus.limit import PacketLimit
from agent.contract.messages import Outgoing

# QoS 1 sends that wait for the window: the states of a burst of jobs, some 200 bytes each.
_MOST_WAITING = 1000

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _Underway:
    """A message that is not settled: one to deliver, one to hand over, or one sent without anybody waiting for it."""

    out: Outgoing
    shorten: Shorten | None = None
    delivered: asyncio.Future[None] | None = None
    handed_over: asyncio.Future[bool] | None = None

    def settle(self, failure: BusError | None) -> None:
        """Tell whoever waits, if somebody still does."""
        if self.handed_over is not None and not self.handed_over.done() and failure is not None:
            self.handed_over.set_exception(failure)  # it is not, and never will be
        elif self.delivered is None:
            if failure is not None:
                _log.warning("mqtt.send_refused", reason=str(failure))
        elif not self.delivered.done():
            if failure is None:
                self.delivered.set_result(None)
            else:
                self.delivered.set_exception(failure)


class Outflow:
    """Publishes in order, as far as the connection's window allows, and again on the next what was not answered.

    Args:
        stats: the session's counters.

    """

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._limit = PacketLimit()
        # From CONNACK on, and whether more than what is handed over may go out on it.
        self._connection: Connection | None = None
        self._open = False
        # Every delivery in progress, oldest first; it survives connections.
        self._deliveries: dict[_Underway, None] = {}
        # What the window has not yet let onto this connection, sends among deliveries: a job's `started` stays
        # before its `final`.
        self._waiting: deque[_Underway] = deque()
        # Deliveries published on this connection, oldest first, and the bytes of their packets.
        self._published: dict[_Underway, int] = {}
        # The one that ended the last connections, it seems; nothing goes beside it.
        self._alone: _Underway | None = None

    def __repr__(self) -> str:
        return f"<Outflow {len(self._deliveries)} to deliver, {self._limit!r}>"

    @property
    def max_packet(self) -> int | None:
        """See `Bus`."""
        return self._limit.most(asyncio.get_running_loop().time())

    @property
    def owes(self) -> bool:
        """Whether there is anything to deliver."""
        return bool(self._deliveries)

    def accepted(self, connection: Connection, max_packet: int | None) -> None:
        """Take note of a new connection, and of what its broker takes. What is handed over may go out on it at once."""
        self._connection = connection
        self._limit.connected(max_packet)

    def open(self) -> None:
        """Publish what comes from now on."""
        self._open = True

    def resume(self) -> None:
        """Publish what was to be delivered before, behind what was sent since."""
        self._waiting.extend(self._deliveries)
        self._publish()

    def close(self, end: End | None) -> bool:
        """Publish nothing more; return whether a packet was found too large. ``end`` is None if the end is ours."""
        published = dict(self._published)
        self._connection = self._alone = None
        self._open = False
        for underway in self._waiting:
            _tell(underway.handed_over, handed_over=False)
        self._waiting.clear()
        self._published.clear()
        if end is None:
            return False
        by_size = end.cause == "too_large"
        if not published or not (by_size or end.cause == "lost"):
            self._limit.ended_innocently()
            return False
        blamed = max(published, key=published.__getitem__) if by_size else next(iter(published))
        size, now = published[blamed], asyncio.get_running_loop().time()
        if not self._limit.ended(blamed, size, now, by_size=by_size):
            return False
        _log.error(
            "mqtt.packet_too_large",
            topic=blamed.out.topic,
            packet_bytes=size,
            max_packet=self._limit.most(now),
            reason="the broker ends the connection upon it, so shorter ones are tried: raise the broker's packet limit",
        )
        return True

    def send(self, out: Outgoing) -> bool:
        """Publish at QoS 1 without waiting, on this connection or never; return whether it was taken.

        Raises:
            BusError: it is too large.

        """
        if not self._open or len(self._waiting) >= _MOST_WAITING:
            return False
        self.refuse_oversize(out)
        self._waiting.append(_Underway(out))
        self._publish()
        return True

    async def deliver(self, out: Outgoing, shorten: Shorten | None) -> None:
        """See `Bus`."""
        underway = _Underway(out, shorten, asyncio.get_running_loop().create_future())
        assert underway.delivered is not None  # noqa: S101  for the type checker
        self._deliveries[underway] = None
        if self._open:
            self._waiting.append(underway)
            self._publish()
        try:
            await underway.delivered
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # it is published, or not connected
                self._waiting.remove(underway)
            raise
        except TryLaterError:
            raise
        except BusError:
            self._stats.undelivered += 1
            raise
        finally:
            del self._deliveries[underway]

    async def hand_over(self, out: Outgoing, shorten: Shorten | None) -> bool:
        """See `Bus`."""
        if self._connection is None:
            return False
        underway = _Underway(out, shorten, handed_over=asyncio.get_running_loop().create_future())
        assert underway.handed_over is not None  # noqa: S101  for the type checker
        self._waiting.append(underway)
        self._publish()
        return await underway.handed_over

    def refuse_oversize(self, out: Outgoing) -> None:
        """Raise `BusError` for a message that is larger than the broker takes."""
        size, most = packet_size(out), self.max_packet
        if most is not None and size > most:
            raise BusError(f"the message has {size:,} bytes, and the broker takes at most {most:,}")

    def _publish(self) -> None:
        """Publish what waits, in order, as far as the window allows."""
        connection = self._connection
        while connection is not None and self._waiting and connection.window_free and self._alone is None:
            underway = self._waiting[0]
            try:
                out = self._fitting(underway)
                if not connection.publish(out, partial(self._settle, underway)):
                    return  # the connection is about to end; the next one takes it
            except BusError as error:
                underway.settle(error)
            else:
                _tell(underway.handed_over, handed_over=True)
                if underway.delivered is not None:
                    self._published[underway] = packet_size(out)
                if self._limit.is_suspect(underway):
                    self._alone = underway
            self._waiting.popleft()

    def _fitting(self, underway: _Underway) -> Outgoing:
        """Return the message as the broker takes it, as far as that is known.

        Raises:
            TryLaterError: as short as it gets, the broker ends the connection upon it.
            BusError: as short as it gets, it is larger than the broker says that it takes.

        """
        out, most, announced = underway.out, self.max_packet, self._limit.announced
        size = packet_size(out)
        if most is not None and size > most and underway.shorten is not None:
            payload = underway.shorten(most - (size - len(out.payload)), most)
            out = replace(out, payload=payload)
            size = packet_size(out)
            self._stats.shortened += len(payload) < len(underway.out.payload)
        if announced is not None and size > announced:
            raise BusError(f"the message has at least {size:,} bytes, and the broker takes at most {announced:,}")
        if self._limit.is_hopeless(underway, size):
            raise TryLaterError(f"the broker ends the connection upon it, even at {size:,} bytes: its log may say why")
        return out

    def _settle(self, underway: _Underway, refusal: Refusal | None) -> None:
        size = self._published.pop(underway, 0)
        if refusal is None:
            self._limit.arrived(size)
        elif underway.handed_over is not None:
            self._stats.undelivered += 1
        if underway is self._alone:
            self._alone = None
        underway.settle(None if refusal is None else _refused(underway.out.topic, refusal))
        self._publish()


def _tell(waiting: asyncio.Future[bool] | None, *, handed_over: bool) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(handed_over)


def _refused(topic: str, refusal: Refusal) -> BusError:
    if refusal.may_pass:
        return TryLaterError(f"the broker does not take {topic} now ({refusal.reason})")
    advice = ": allow edge-slm to write there in the broker's ACL" if refusal.reason == "Not authorized" else ""
    return BusError(f"the broker refuses {topic} ({refusal.reason}){advice}")
