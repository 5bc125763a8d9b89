"""HTTP with one endpoint: its connections, a request and what comes back, whether it is ready."""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import time
from typing import Any

import httpx

from agent import __version__
from agent.engines.cloud import faults
from agent.engines.cloud.presets import Endpoint
from agent.engines.cloud.stream import beginning

# A lost SYN is sent again after one and after three seconds.
_CONNECT_S = 5.0
# Balancers cut what is silent for a minute, and a model that has begun is not silent for seconds. Of a longer wait for
# the first token, NVIDIA's gateway says so before (202), and a llama.cpp server with a comment each half minute.
_SILENCE_S = 60.0
_PUT_OFF_S = 50
# A gateway that puts off at once is not asked faster than this.
_PACE_S = 0.25
# nginx closes what is idle for 75 s. Who is first there can use a connection again, and not lose a request to its end.
_IDLE_S = 60.0
_PROBE_S = 5.0
# A problem's description is short; somebody else's page may be long.
_PROBLEM_BYTES = 64 << 10

_TLS = ssl.PROTOCOL_TLS_CLIENT

Trace = Callable[[str, dict[str, Any]], Awaitable[None]]


class Exchange:
    """Speaks with one endpoint, over connections that are kept between jobs. `connected` opens it.

    Args:
        endpoint: where.
        key: shown with each request, never with a question for readiness.
        client: of httpx.

    """

    def __init__(self, endpoint: Endpoint, key: str | None, client: httpx.AsyncClient) -> None:
        self._endpoint = endpoint
        self._headers = {"Content-Type": "application/json"} | endpoint.credentials(key)
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connected(cls, endpoint: Endpoint, key: str | None, connections: int) -> AsyncIterator["Exchange"]:
        """Open it for ``connections`` requests at a time, and close all its connections at the end."""
        # The system's authorities, as for the broker; 140 of them take 30 ms, and not on the loop. Without TLS there is
        # nobody to trust.
        with_tls = endpoint.chat.startswith("https:")
        trusted = await asyncio.to_thread(ssl.create_default_context) if with_tls else ssl.SSLContext(_TLS)
        client = httpx.AsyncClient(
            verify=trusted,
            # A proxy in the environment would see where jobs go and, without TLS, the jobs; a ~/.netrc holds keys of
            # others. A job goes to base_url, and there alone.
            trust_env=False,
            # The same: a redirect would carry it elsewhere. And what the endpoint would have us remember links jobs.
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            # Tokens are too short to be worth compressing, and nothing comes out larger than it came in.
            headers={
                "User-Agent": f"edge-slm-agent/{__version__}",
                "Accept": "text/event-stream, application/json",
                "Accept-Encoding": "identity",
            },
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S, pool=_CONNECT_S),
            limits=httpx.Limits(max_connections=connections, keepalive_expiry=_IDLE_S),
        )
        async with client:
            yield cls(endpoint, key, client)

    async def ask(
        self, body: bytes, left_s: Callable[[], float], leaving: Callable[[], Awaitable[None]]
    ) -> httpx.Response:
        """Send a chat completion; return the response whose body is its answer, to be closed by the caller.

        Args:
            body: of the request.
            left_s: how long the answer is still of use, in seconds.
            leaving: awaited when the connection stands, before the first byte is written to it.

        Raises:
            Failed: the endpoint gave no answer.
            httpx.HTTPError: the connection broke.

        """

        async def trace(event: str, _: dict[str, Any]) -> None:
            if event.endswith(".send_request_headers.started"):
                await leaving()

        response = await self._send("POST", self._endpoint.chat, left_s(), body, trace)
        put_off = False
        while response.status_code == httpx.codes.ACCEPTED:
            put_off = True
            response = await self._look_again(response, left_s)
        if response.status_code == httpx.codes.OK:
            return response
        problem = await beginning(response, _PROBLEM_BYTES)
        await response.aclose()
        if put_off and response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            raise faults.truncated("put_off_and_lost")  # it is the id that is not there; of the model that says nothing
        raise faults.answered(response.status_code, response.headers, problem, time())

    async def ready(self) -> int | None:
        """Ask whether the server is ready; return its status, 200 if it is, or None if it cannot be reached."""
        if self._endpoint.health is None:
            return httpx.codes.OK
        try:
            return (await self._client.get(self._endpoint.health, timeout=_PROBE_S)).status_code
        except httpx.HTTPError:
            return None

    async def _look_again(self, response: httpx.Response, left_s: Callable[[], float]) -> httpx.Response:
        """Ask what became of a request that was put off."""
        number = response.headers.get("nvcf-reqid", "")
        await beginning(response, _PROBLEM_BYTES)
        await response.aclose()
        if not number.replace("-", "").isalnum() or not number.isascii():
            raise faults.truncated("put_off_without_id")
        if left_s() <= 0:
            raise faults.timed_out()
        await asyncio.sleep(_PACE_S)
        return await self._send("GET", self._endpoint.put_off + number, left_s())

    async def _send(
        self, method: str, url: str, left_s: float, body: bytes | None = None, trace: Trace | None = None
    ) -> httpx.Response:
        headers = self._headers
        if self._endpoint.name == "nim":
            # How long the gateway holds on to a request before it puts it off.
            headers = headers | {"NVCF-POLL-SECONDS": str(max(1, min(math.ceil(left_s), _PUT_OFF_S)))}
        extensions = {"trace": trace} if trace else None
        request = self._client.build_request(method, url, content=body, headers=headers, extensions=extensions)
        return await self._client.send(request, stream=True)
