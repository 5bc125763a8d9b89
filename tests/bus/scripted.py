"""A broker that does what a test tells it, packet by packet."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 14


@dataclass(frozen=True)
class Packet:
    """A packet, with its fixed header taken off."""

    kind: int
    flags: int
    body: bytes

    @property
    def version(self) -> str:
        """MQTT version of a CONNECT."""
        return {4: "3.1.1", 5: "5"}[self.body[6]]

    @property
    def topic(self) -> str:
        """Topic of a PUBLISH."""
        length = int.from_bytes(self.body[:2])
        return self.body[2 : 2 + length].decode()

    @property
    def mid(self) -> int:
        """Packet identifier of a PUBLISH at QoS 1, a PUBACK or a SUBSCRIBE."""
        start = 2 + int.from_bytes(self.body[:2]) if self.kind == PUBLISH else 0
        return int.from_bytes(self.body[start : start + 2])


class Peer:
    """The broker's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.version = ""

    async def packet(self) -> Packet:
        """Read the next packet."""
        head = (await self._reader.readexactly(1))[0]
        length, shift = 0, 0
        while True:
            byte = (await self._reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return Packet(head >> 4, head & 15, await self._reader.readexactly(length))

    async def expect(self, kind: int) -> Packet:
        """Read the next packet, which is of that kind."""
        packet = await self.packet()
        assert packet.kind == kind, packet
        return packet

    def send(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Write a packet."""
        length, size = len(body), bytearray()
        while True:
            length, low = divmod(length, 128)
            size.append(low | (128 if length else 0))
            if not length:
                break
        self.writer.write(bytes([kind << 4 | flags]) + size + body)

    @property
    def _no_properties(self) -> bytes:
        return b"\0" if self.version == "5" else b""

    async def connect(self, code: int | None = 0, properties: bytes = b"\0") -> Packet:
        """Read CONNECT, and answer it with that code, or not at all."""
        packet = await self.expect(CONNECT)
        self.version = packet.version
        if code is not None:
            self.send(CONNACK, bytes([0, code]) + (properties if self.version == "5" else b""))
        return packet

    async def subscribe(self, *codes: int) -> None:
        """Read SUBSCRIBE, and answer it."""
        packet = await self.expect(SUBSCRIBE)
        self.send(SUBACK, packet.body[:2] + self._no_properties + bytes(codes or (1, 1, 1)))

    async def bring_online(self) -> None:
        """Play a broker that works, until the bus has said `online`."""
        await self.connect()
        await self.subscribe()
        self.puback((await self.expect(PUBLISH)).mid)

    def publish(self, topic: str | bytes, payload: bytes, mid: int = 0) -> None:
        """Send a message, at QoS 1 if it has a packet identifier."""
        name = topic.encode() if isinstance(topic, str) else topic
        identifier = struct.pack("!H", mid) if mid else b""
        body = struct.pack("!H", len(name)) + name + identifier + self._no_properties + payload
        self.send(PUBLISH, body, flags=2 if mid else 0)

    def puback(self, mid: int, code: int = 0) -> None:
        """Acknowledge a message."""
        self.send(PUBACK, struct.pack("!H", mid) + (bytes([code, 0]) if code else b""))

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()


class ScriptedBroker:
    """Listens, and hands out connections in the order they come."""

    def __init__(self) -> None:
        self.port = 0
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def accept(self) -> Peer:
        """Return the next connection."""
        return await self._peers.get()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection from the server."""
        self._peers.put_nowait(Peer(reader, writer))


@asynccontextmanager
async def scripted_broker() -> AsyncIterator[ScriptedBroker]:
    """Run a scripted broker; its connections are closed at the end."""
    broker = ScriptedBroker()
    writers: list[asyncio.StreamWriter] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await broker.serve(reader, writer)

    server = await asyncio.start_server(accepted, "127.0.0.1")
    broker.port = server.sockets[0].getsockname()[1]
    try:
        yield broker
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()
