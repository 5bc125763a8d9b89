"""The link between the agent and its broker: a TCP proxy that disturbs it, and writes down what passes."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Self, TypeAlias

from agent.contract.jobs import Key
from tests.chaos.history import History
from tests.chaos.packets import CONNECT, PUBACK, PUBLISH, Decoder, Publish, read_publish

# A slow serial line: 7 bytes every 5 ms are 1.4 KB/s, at which an event of a job takes some 0.2 s.
_PIECE_BYTES, _PIECE_S = 7, 0.005
_READ = 65536


class Tap:
    """Reads along on one connection of the agent, and keeps what it means in the history."""

    def __init__(self, history: History, connection: int) -> None:
        self._history = history
        self._connection = connection
        self._v5 = False
        self._from_agent, self._from_broker = Decoder(), Decoder()
        # Under way, by their packet identifiers.
        self._requests: dict[int, Key] = {}
        self._finals: dict[int, Key] = {}

    def from_agent(self, data: bytes) -> None:
        """Take what the agent said."""
        for packet in self._from_agent.feed(data):
            if packet.kind == CONNECT:
                self._v5 = packet.body[6] == 5
                self._history.connected[self._connection] = time.time()
            elif packet.kind == PUBACK and packet.mid in self._requests:
                self._history.acknowledged.add(self._requests.pop(packet.mid))
                self._history.passed("acknowledged")
            elif packet.kind == PUBLISH:
                self._told(read_publish(packet, v5=self._v5))

    def from_broker(self, data: bytes) -> None:
        """Take what the broker said."""
        for packet in self._from_broker.feed(data):
            if packet.kind == PUBACK and packet.mid in self._finals:
                self._history.taken.setdefault(self._finals.pop(packet.mid), []).append(time.time())
                self._history.passed("taken")
            elif packet.kind == PUBLISH:
                message = read_publish(packet, v5=self._v5)
                key = _requested(message)
                if key is not None:
                    self._requests[message.mid] = key
                    self._history.passed("request")

    def _told(self, message: Publish) -> None:
        match message.topic.split("/"):
            case [_, _, "res", client, job_id, ("state" | "chunk" | "final") as kind]:
                key = Key(client, job_id)
                self._history.told(key, kind, message.payload, self._connection)
                if kind == "final":
                    self._finals[message.mid] = key


def _requested(message: Publish) -> Key | None:
    """Return whose job a message asks for; None for a cancel, and for a frame whose id the broker left out.

    For an agent that speaks 3.1.1, it leaves out all that this version has no place for.
    """
    match message.topic.split("/"):
        case [_, _, "req", client, "text" | "image", *_]:
            if message.payload.startswith(b"{"):
                return Key(client, json.loads(message.payload)["id"])
            return Key(client, message.correlation.decode()) if message.correlation else None
    return None


_Both: TypeAlias = tuple[asyncio.StreamWriter, asyncio.StreamWriter]
"""The two ends of a connection: towards the agent, and towards the broker."""


class Link:
    """Listens for the agent, and passes on what it and the broker say to each other.

    Args:
        broker_port: of the broker on the loopback.
        history: where everything that passes is written down.

    Attributes:
        port: where the agent finds it.

    """

    def __init__(self, broker_port: int, history: History) -> None:
        self.port = 0
        self._broker_port = broker_port
        self._history = history
        self._connections = 0
        self._open: set[_Both] = set()
        self._is_open = asyncio.Event()
        self._forgotten: set[_Both] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._delay_s = 0.0
        self._swallows = False
        self._trickles = False
        self._defects: list[Exception] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1")
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        _cut(self._open | self._forgotten)
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()
        if self._defects:
            raise ExceptionGroup("the proxy broke", self._defects)

    async def opened(self) -> None:
        """Wait until there is a connection to disturb."""
        await self._is_open.wait()

    def cut(self) -> None:
        """End every connection with a RST, both ways."""
        _cut(self._open)

    def half_close(self) -> None:
        """Say FIN to the agent, and nothing to the broker."""
        for agent, _ in self._open:
            with suppress(OSError, RuntimeError):
                agent.write_eof()

    @contextmanager
    def delayed(self, seconds: float) -> Iterator[None]:
        """Let everything take so much longer, both ways."""
        self._delay_s = seconds
        try:
            yield
        finally:
            self._delay_s = 0.0

    @contextmanager
    def black_hole(self) -> Iterator[None]:
        """Lose everything, both ways, and close nothing before the end."""
        self._swallows = True
        try:
            yield
        finally:
            self._swallows = False
            self.cut()  # what was lost cannot be mended

    @contextmanager
    def trickling(self) -> Iterator[None]:
        """Let everything through in little pieces, slowly."""
        self._trickles = True
        try:
            yield
        finally:
            self._trickles = False

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._connections += 1
        tap = Tap(self._history, self._connections)
        try:
            broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._broker_port)
        except OSError:
            _reset(writer)
            return
        both = (writer, broker_writer)
        self._open.add(both)
        self._is_open.set()
        pumps = [
            asyncio.create_task(self._pump(reader, broker_writer, tap.from_agent)),
            asyncio.create_task(self._pump(broker_reader, writer, tap.from_broker)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self._open.discard(both)
        if not self._open:
            self._is_open.clear()
        if self._swallows:
            # That one side gave up reaches the other as little: the broker learns of it when it is taken over.
            self._forgotten.add(both)
            await asyncio.wait(pumps)
            self._forgotten.discard(both)
        for pump in pumps:
            pump.cancel()
        ended = await asyncio.gather(*pumps, return_exceptions=True)
        self._defects += [each for each in ended if isinstance(each, Exception)]
        for each in both:
            each.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tap: Callable[[bytes], None]
    ) -> None:
        with suppress(OSError, RuntimeError):  # it was closed under our hands
            while data := await reader.read(_READ):
                tap(data)
                if self._swallows:
                    continue
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                while self._trickles and len(data) > _PIECE_BYTES:
                    writer.write(data[:_PIECE_BYTES])
                    data = data[_PIECE_BYTES:]
                    await asyncio.sleep(_PIECE_S)
                writer.write(data)
                await writer.drain()


def _cut(connections: Iterable[_Both]) -> None:
    for both in connections:
        for writer in both:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
