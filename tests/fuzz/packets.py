"""MQTT packets as no client library would write them, for MQTT 3.1.1 (4) and 5."""

import asyncio
from random import Random


def connect(version: int, name: str) -> bytes:
    """Build the CONNECT that an MQTT client begins with."""
    head = _text(b"MQTT") + bytes((version, 2, 0, 60))
    return _packet(0x10, head + (b"\0" if version == 5 else b"") + _text(name.encode()))


def publish(topic: bytes, payload: bytes, *, flags: int = 2, properties: bytes | None = None) -> bytes:
    """Build a PUBLISH; ``flags`` are its first byte's lower half, DUP, QoS and RETAIN."""
    identifier = b"\0\1" if flags & 6 else b""
    body = b"" if properties is None else _length(len(properties)) + properties
    return _packet(0x30 | flags, _text(topic) + identifier + body + payload)


def malformed(rng: Random, topic: bytes, payload: bytes) -> tuple[int, bytes]:
    """Return a version, and a packet of it that a broker should not take."""
    prefix = topic.rpartition(b"/")[0]
    topics = (
        b"",
        b"\xff\xfe",
        prefix + b"/\xed\xa0\x80",
        prefix + b"\0/text",
        prefix + b"/+",
        b"#",
        prefix + b"/" * 300,
    )
    properties = (
        b"\x7f\0",  # unknown
        b"\x01\x02",  # a payload format that is none
        b"\x01",  # cut off
        b"\x23\0\0",  # the topic alias 0
        b"\x23\xff\xff",  # one that was never agreed on
        b"\x02\0\0\0\1" * 2,  # a property twice
        b"\x0b\x01",  # a subscription identifier, which clients may not send
        *(b"\x08" + _text(each) for each in (b"", b"\xff", b"a\1", b"+/#", b"a\0b", b"a\x7f")),
        b"\x26" + _text(b"\xff") + _text(b"x"),
        b"\x26" + _text(b"x") + _text("\ufeff".encode()),  # legal, and paho ends the connection for it
        b"\x03" + _text(b"\xc0\xaf"),
    )
    whole = publish(topic, payload)
    return rng.choice(
        (
            (4, publish(rng.choice(topics), payload)),
            (5, publish(rng.choice(topics), payload, properties=b"")),
            (5, publish(topic, payload, properties=rng.choice(properties))),
            (4, publish(topic, payload, flags=6)),
            (4, whole[: rng.randrange(1, len(whole))]),
            (4, whole[:2] + b"\xff\xff" + whole[4:]),
            (4, b"\x32\xff\xff\xff\xff\xff" + whole),
            (4, bytes((rng.randrange(256),)) + rng.randbytes(20)),
        )
    )


async def send(port: int, name: str, version: int, packet: bytes) -> None:
    """Send a packet as it is, and wait until the broker has read it and closed the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(connect(version, name))
        await reader.readexactly(4)  # of the CONNACK; it would not be sent to a packet that came too early
        writer.write(packet)
        writer.write_eof()
        await reader.read()
    except (OSError, asyncio.IncompleteReadError):
        pass  # closed already
    finally:
        writer.close()


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _length(len(body)) + body


def _length(size: int) -> bytes:
    """Encode a variable byte integer."""
    out = bytearray()
    while True:
        size, low = divmod(size, 128)
        out.append(low | (0x80 if size else 0))
        if not size:
            return bytes(out)


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
