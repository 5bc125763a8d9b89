"""Connections with one endpoint, kept between requests, and what comes over them, as much of it as may."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from agent import __version__
from agent.engines.cloud import faults

# A lost SYN is sent again after one and after three seconds.
_CONNECT_S = 5.0
# Balancers cut what is silent for a minute, and a model that has begun is not silent for seconds. Of a longer wait for
# the first token, NVIDIA's gateway says so before (202), and a llama.cpp server with a comment each half minute.
_SILENCE_S = 60.0
# nginx closes what is idle for 75 s. Who is first there can use a connection again, and not lose a request to its end.
_IDLE_S = 60.0

_TLS = ssl.PROTOCOL_TLS_CLIENT

Trace = Callable[[str, dict[str, Any]], Awaitable[None]]


class Connections:
    """Sends requests. `opened` makes it.

    httpcore (1.0.9) guards its books against anyio's way to cancel, not against asyncio's: of a thousand requests that
    are canceled at any moment, five to eight leave a connection that nobody uses or closes again. So their number has
    no bound here, where it would at last keep every job out: the engine's slots are one. And when nothing is under way,
    the client has a new one in its place, if not all that was asked of it was read to the end.

    Args:
        trusted: whom to believe that they are the endpoint.

    """

    def __init__(self, trusted: ssl.SSLContext) -> None:
        self._trusted = trusted
        self._client = _client(trusted)
        self._under_way = 0
        self._cut = False
        self._closing: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Connections with {self._under_way} requests under way>"

    @classmethod
    @asynccontextmanager
    async def opened(cls, *, with_tls: bool) -> AsyncIterator["Connections"]:
        """Make it, and close all connections at the end of the context."""
        # The system's authorities, as for the broker; 140 of them take 30 ms, and not on the loop. Without TLS there is
        # nobody to trust.
        trusted = await asyncio.to_thread(ssl.create_default_context) if with_tls else ssl.SSLContext(_TLS)
        connections = cls(trusted)
        try:
            yield connections
        finally:
            await asyncio.gather(connections._client.aclose(), *connections._closing)

    async def send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        room: int,
        body: bytes | None = None,
        trace: Trace | None = None,
    ) -> httpx.Response:
        """Send a request; return the response, of which the head has come. The caller closes it.

        Args:
            method: of HTTP.
            url: where.
            headers: besides those that all requests have.
            room: how many bytes may come back. Reading more raises `faults.Failed`.
            body: what is sent.
            trace: of httpcore, told what happens with the request.

        Raises:
            httpx.HTTPError: the connection broke.

        """
        extensions = {"trace": trace} if trace else None
        request = self._client.build_request(method, url, content=body, headers=headers, extensions=extensions)
        self._under_way += 1
        try:
            response = await self._client.send(request, stream=True)
        except BaseException:
            self._ended(whole=False)
            raise
        # We take no compression. httpx would undo what comes nevertheless, and 658 bytes can become 300 MiB at once.
        response.headers.pop("content-encoding", None)
        response.encoding = "utf-8"  # as JSON and server-sent events always are, whatever the head says
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101  it is an async client's
        response.stream = _Bounded(response.stream, room, self._ended)
        return response

    def _ended(self, *, whole: bool) -> None:
        """Note the end of a request; ``whole`` is whether its response was read to the end, and closed."""
        self._under_way -= 1
        self._cut |= not whole
        if self._cut and self._under_way == 0:
            # In a task of its own, since a cancel may have brought us here, and another may come.
            closing = asyncio.create_task(self._client.aclose(), name="cloud-closing")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._client, self._cut = _client(self._trusted), False


class _Bounded(httpx.AsyncByteStream):
    """A response's body, up to a number of bytes; tells of its end."""

    def __init__(self, body: httpx.AsyncByteStream, room: int, ended: Callable[..., None]) -> None:
        self._body = body
        self._room = room
        self._ended = ended
        self._read = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._body:
            self._room -= len(piece)
            if self._room < 0:
                raise faults.truncated("endless")
            yield piece
        self._read = True

    async def aclose(self) -> None:
        """Close it; `httpx.Response` does so once, whatever happens to it."""
        whole = False
        try:
            await self._body.aclose()
            whole = self._read
        finally:
            self._ended(whole=whole)


def _client(trusted: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        verify=trusted,
        # A proxy in the environment would see where jobs go and, without TLS, the jobs; a ~/.netrc holds keys of
        # others. A job goes to base_url, and there alone.
        trust_env=False,
        # The same: a redirect would carry it elsewhere. And what the endpoint would have us remember links jobs.
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={
            "User-Agent": f"edge-slm-agent/{__version__}",
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",  # tokens are too short to be worth compressing
        },
        timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
        limits=httpx.Limits(max_connections=None, keepalive_expiry=_IDLE_S),
    )
