"""As much of MQTT as tells who said what to whom, from the bytes that pass by."""

from collections.abc import Iterator
from typing import NamedTuple

CONNECT, PUBLISH, PUBACK = 1, 3, 4
# Properties of a PUBLISH by the lengths of their values; the others have a length before them (MQTT 5, 2.2.2.2).
_FIXED = {0x01: 1, 0x02: 4, 0x23: 2}
_CORRELATION, _SUBSCRIPTION, _USER = 0x09, 0x0B, 0x26


class Packet(NamedTuple):
    """A packet, with its fixed header taken off."""

    kind: int
    flags: int
    body: bytes

    @property
    def mid(self) -> int:
        """Packet identifier of a PUBACK."""
        return int.from_bytes(self.body[:2])


class Publish(NamedTuple):
    """A PUBLISH, read; ``mid`` is 0 at QoS 0."""

    topic: str
    mid: int
    payload: bytes
    correlation: bytes | None


class Decoder:
    """Makes packets of one direction of a connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Take bytes, and yield the packets that are complete."""
        self._buffer += data
        while (header := _length(self._buffer, 1)) is not None:
            length, start = header
            if len(self._buffer) < start + length:
                return
            packet = Packet(self._buffer[0] >> 4, self._buffer[0] & 15, bytes(self._buffer[start : start + length]))
            del self._buffer[: start + length]
            yield packet


def read_publish(packet: Packet, *, v5: bool) -> Publish:
    """Read a PUBLISH."""
    body = packet.body
    at = 2 + int.from_bytes(body[:2])
    topic, mid, correlation = body[2:at].decode(), 0, None
    if packet.flags & 0b0110:
        mid = int.from_bytes(body[at : at + 2])
        at += 2
    if v5:
        found = _length(body, at)
        assert found is not None
        length, at = found
        correlation = _correlation(body[at : at + length])
        at += length
    return Publish(topic, mid, body[at:], correlation)


def _length(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Read a variable byte integer; return it and where it ends, or None if it is not all there."""
    value = 0
    for count, byte in enumerate(data[at : at + 4]):
        value |= (byte & 127) << 7 * count
        if byte < 128:
            return value, at + count + 1
    return None


def _correlation(properties: bytes) -> bytes | None:
    at = 0
    while at < len(properties):
        name, at = properties[at], at + 1
        if name in _FIXED:
            at += _FIXED[name]
        elif name == _SUBSCRIPTION:
            found = _length(properties, at)
            assert found is not None
            at = found[1]
        else:
            for _ in range(2 if name == _USER else 1):
                end = at + 2 + int.from_bytes(properties[at : at + 2])
                if name == _CORRELATION:
                    return properties[at + 2 : end]
                at = end
    return None
