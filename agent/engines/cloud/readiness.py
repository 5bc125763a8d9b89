"""Whether an endpoint is ready, as far as it is known without asking it all the time."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Never

import httpx
import structlog

from agent.backoff import Backoff
from agent.engines.base import Health
from agent.engines.cloud.exchange import Exchange

_log = structlog.get_logger(__name__)

# A model server takes seconds to minutes to load.
_FIRST_S, _MOST_S = 2.0, 30.0


class Readiness:
    """Follows one endpoint.

    Args:
        model: for people.
        provider: the kind of endpoint.
        random: returns a number in [0, 1).

    Attributes:
        health: as it is known now.

    """

    def __init__(self, model: str, provider: str, random: Callable[[], float]) -> None:
        self.health = Health("loading", model, provider)
        self._random = random
        self._changed = asyncio.Event()
        self._doubted = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Readiness {self.health.state}>"

    async def changed(self) -> Health:
        """Wait for the next change of state, and return the health after it."""
        await self._changed.wait()
        return self.health

    def doubt(self) -> None:
        """Have it looked at again: a request has failed."""
        self._doubted.set()

    async def watch(self, exchange: Exchange) -> Never:
        """Ask at first, after a failure, and then now and then until it is ready: nothing while all is well."""
        backoff = Backoff(_FIRST_S, _MOST_S, self._random)
        while True:
            self._doubted.clear()
            status = await exchange.ready()
            # A gateway in front may not know the path, or want a login. It is there, and the breaker judges the rest.
            if status is not None and not httpx.codes.is_server_error(status):
                self._become("ready", None)
                backoff.reset()
                await self._doubted.wait()
            else:
                why = "cannot be reached" if status is None else f"is not ready ({status})"
                self._become("loading", f"the cloud endpoint {why}: try again later")
                await asyncio.sleep(backoff.next())

    def stopped(self) -> None:
        """Note that nobody watches any more."""
        self._become("loading", "the engine was stopped")

    def _become(self, state: Literal["loading", "ready"], detail: str | None) -> None:
        health = replace(self.health, state=state, detail=detail)
        if health != self.health:
            self.health = health
            self._changed.set()
            self._changed = asyncio.Event()
            _log.info("cloud.endpoint_changed", state=state, detail=detail)
