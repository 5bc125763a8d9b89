"""One request as it came, and the way back to its client."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, TypeAlias

from agent.standin.faults import JSON, Plan, Refusal, Stream

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_DRIP_BYTES = 7
_DRIP_S = 0.0005


@dataclass(eq=False)
class Seen:
    """A request, as it came and as it went. Times are the event loop's, in seconds.

    Attributes:
        payload: the body's bytes.
        body: these, read; None where they are no JSON.
        plan: what it met; of a poll, what its request met.
        status: of the answer; 0 while it has none.
        words: how many were sent.
        disconnected: whether its client left before the end.
        over: set at the end, whichever it is.

    """

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    payload: bytes = field(repr=False)
    body: Any = field(default=None, repr=False)
    plan: Plan = None
    at: float = 0.0
    first_token_at: float | None = None
    ended_at: float | None = None
    status: int = 0
    words: int = 0
    disconnected: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


class Wire:
    """What goes out to one client.

    Args:
        scope: of ASGI; where its state has an ``abort``, that cuts the connection.
        send: of ASGI.
        seen: is told the answer's status.

    """

    def __init__(self, scope: Message, send: Send, seen: Seen) -> None:
        self._send = send
        self._seen = seen
        self._abort: Callable[[], None] | None = scope.get("state", {}).get("abort")

    async def head(self, status: int, media: str | None, **headers: str) -> None:
        """Begin the answer; of each header's name, ``_`` stands for ``-``."""
        self._seen.status = status
        if media is not None:
            headers["content_type"] = media
        listed = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": listed})

    async def body(self, data: bytes, *, more: bool = True) -> None:
        """Send the next bytes of the answer's body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def event(self, data: Message, *, drip: bool = False) -> None:
        """Send a server-sent event; dripping, in pieces that end within a word or a line."""
        encoded = f"data: {json.dumps(data)}\n\n".encode()
        size = _DRIP_BYTES if drip else len(encoded)
        for begin in range(0, len(encoded), size):
            await self.body(encoded[begin : begin + size])
            if drip:
                await asyncio.sleep(_DRIP_S)

    async def whole(self, status: int, data: bytes, media: str = JSON, **headers: str) -> None:
        """Send an answer that is known whole."""
        await self.head(status, media if data else None, content_length=str(len(data)), **headers)
        await self.body(data, more=False)

    async def refuse(self, refusal: Refusal) -> None:
        """Send an answer without words."""
        headers = {}
        if refusal.retry_after_s is not None:
            # A date has whole seconds: the next one, or it would be shorter than what is meant.
            date = formatdate(time.time() + refusal.retry_after_s + 1, usegmt=True)
            headers["retry_after"] = date if refusal.dated else f"{refusal.retry_after_s:g}"
        if refusal.location is not None:
            headers["location"] = refusal.location
        await self.whole(refusal.status, refusal.body, refusal.media, **headers)

    async def end_badly(self, wrong: Stream) -> None:
        """Close the connection, or be silent, until the client has gone."""
        if wrong.how == "cut":
            if self._abort is None:
                raise RuntimeError("this server has no way to cut a connection: give it one as state['abort']")
            self._abort()
        await asyncio.Event().wait()


async def read(scope: Message, receive: Receive) -> Seen:
    """Read a request whole."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    payload = b""
    more = True
    while more:
        message = await receive()
        payload += message.get("body", b"")
        more = message.get("more_body", False)
    seen = Seen(scope["method"], scope["path"], headers, payload, at=asyncio.get_running_loop().time())
    with suppress(ValueError):
        seen.body = json.loads(payload)
    return seen
