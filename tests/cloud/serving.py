"""An ASGI application over real HTTP, on the test's own loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

if TYPE_CHECKING:
    from agent.standin import StandIn


class _Cuttable(H11Protocol):
    """uvicorn's HTTP, with what ASGI has no word for: an end without an answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.app_state = {"abort": transport.abort}


@asynccontextmanager
async def serving(app: "StandIn") -> AsyncIterator[str]:
    """Serve on a free port of the loopback, and yield the base URL, up to and with ``/v1``.

    What is under way at the end is cut off, however long it would stall. uvicorn's protocol is used without its server,
    whose signal handlers and tenth of a second for each stop are nothing for a test.
    """
    config = Config(
        app,
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        timeout_keep_alive=75,  # nginx's own
    )
    config.load()
    state = ServerState()
    # asyncio turns Nagle's algorithm off on sockets that say they are TCP, and `socket.create_server` does not say so:
    # a first word would wait 40 ms for the client's delayed acknowledgement of the head.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Cuttable(config, state, {}), sock=listening)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.gather(*state.tasks)
        await server.wait_closed()
