"""HTTP with one endpoint: a request and what comes back, whether it is ready."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import time
from typing import Any

import httpx

from agent.engines.cloud import faults
from agent.engines.cloud.connections import Connections, Trace
from agent.engines.cloud.presets import Endpoint
from agent.engines.cloud.stream import beginning

_PUT_OFF_S = 50
# A gateway that puts off at once is not asked faster than this: polls are not counted, and eight jobs are 480 a minute.
_PACE_S = 1.0
_PROBE_S = 5.0
# A problem's description is short; somebody else's page may be long.
_PROBLEM_BYTES = 64 << 10
# A chunk of one token is 200 to 700 characters of JSON. What says so much more than it was asked for never ends.
_BASE_ROOM, _ROOM = 1 << 20, 4096


class Exchange:
    """Speaks with one endpoint, over connections that are kept between jobs. `connected` opens it.

    Args:
        endpoint: where.
        key: shown with each request, never with a question for readiness.
        connections: with it.

    """

    def __init__(self, endpoint: Endpoint, key: str | None, connections: Connections) -> None:
        self._endpoint = endpoint
        self._headers = {"Content-Type": "application/json"} | endpoint.credentials(key)
        self._connections = connections

    @classmethod
    @asynccontextmanager
    async def connected(cls, endpoint: Endpoint, key: str | None) -> AsyncIterator["Exchange"]:
        """Open it, and close all its connections at the end."""
        async with Connections.opened(with_tls=endpoint.chat.startswith("https:")) as connections:
            yield cls(endpoint, key, connections)

    async def ask(
        self,
        body: bytes,
        left_s: Callable[[], float],
        leaving: Callable[[], Awaitable[None]],
        heard: Callable[[], None],
        *,
        max_tokens: int,
    ) -> httpx.Response:
        """Send a chat completion; return the response whose body is its answer, to be closed by the caller.

        Args:
            body: of the request.
            left_s: how long the answer is still of use, in seconds.
            leaving: awaited when the connection stands, before the first byte is written to it.
            heard: called at each head that comes back, also of a request that is put off.
            max_tokens: how long the answer may become. Much more than that is not read.

        Raises:
            Failed: the endpoint gave no answer.
            httpx.HTTPError: the connection broke.

        """

        async def trace(event: str, _: dict[str, Any]) -> None:
            if event.endswith(".send_request_headers.started"):
                await leaving()

        room = _BASE_ROOM + _ROOM * max_tokens
        response = await self._send("POST", self._endpoint.chat, left_s(), room, body, trace)
        heard()
        put_off = False
        while response.status_code == httpx.codes.ACCEPTED:
            put_off = True
            response = await self._look_again(response, left_s, room)
            heard()
        if response.status_code == httpx.codes.OK:
            return response
        problem = await _beginning(response)
        if put_off and response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            raise faults.truncated("put_off_and_lost")  # it is the id that is not there; of the model that says nothing
        raise faults.answered(response.status_code, response.headers, problem, time())

    async def ready(self) -> int | None:
        """Ask whether the server is ready; return its status, 200 if nobody is to be asked, None if nobody is there."""
        if self._endpoint.health is None:
            return httpx.codes.OK
        try:
            async with asyncio.timeout(_PROBE_S):
                response = await self._connections.send("GET", self._endpoint.health, {}, 0)
            await response.aclose()  # whatever else it says, and for however long
        except (httpx.HTTPError, TimeoutError):
            return None
        return response.status_code

    async def _look_again(self, response: httpx.Response, left_s: Callable[[], float], room: int) -> httpx.Response:
        """Ask what became of a request that was put off."""
        number = response.headers.get("nvcf-reqid", "")
        await _beginning(response)
        if not number.replace("-", "").isalnum() or not number.isascii():
            raise faults.truncated("put_off_without_id")
        if left_s() <= 0:
            raise faults.timed_out()
        await asyncio.sleep(_PACE_S)
        return await self._send("GET", self._endpoint.put_off + number, left_s(), room)

    async def _send(
        self, method: str, url: str, left_s: float, room: int, body: bytes | None = None, trace: Trace | None = None
    ) -> httpx.Response:
        headers = self._headers
        if self._endpoint.name == "nim":
            # How long the gateway holds on to a request before it puts it off.
            headers = headers | {"NVCF-POLL-SECONDS": str(max(1, min(math.ceil(left_s), _PUT_OFF_S)))}
        return await self._connections.send(method, url, headers, room, body, trace)


async def _beginning(response: httpx.Response) -> bytes:
    """Read what there is to read of a response that is no answer, and close it."""
    try:
        return await beginning(response, _PROBLEM_BYTES)
    finally:
        await response.aclose()
