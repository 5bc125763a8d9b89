"""An endpoint that is no HTTP server but a recorder: whatever reaches it, in whatever shape, is kept."""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def streamed(*texts: str) -> bytes:
    """Return a whole answer, as an event stream."""
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return answer("200 OK", "Content-Type: text/event-stream", body=events.encode())


HANG_UP = b""
READY = answer("200 OK")
PARIS = streamed("Par", "is")


@dataclass
class Recorder:
    """A socket that keeps every byte it gets, and answers each request with the next of ``answers``."""

    answers: deque[bytes] = field(default_factory=deque)
    received: bytes = b""
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await self._keep(reader.readuntil(b"\r\n\r\n"))
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                body = await self._keep(reader.readexactly(int(length[1]) if length else 0))
                if head.startswith(b"GET"):
                    writer.write(READY)
                    continue
                self.heads.append(head)
                self.bodies.append(body)
                said = self.answers.popleft() if self.answers else PARIS
                if said == HANG_UP:
                    return
                writer.write(said)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _keep(self, reading: Awaitable[bytes]) -> bytes:
        try:
            data = await reading
        except asyncio.IncompleteReadError as error:
            self.received += error.partial
            raise
        self.received += data
        return data


@asynccontextmanager
async def recording() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0)
    recorder.port = server.sockets[0].getsockname()[1]
    async with server:
        yield recorder
