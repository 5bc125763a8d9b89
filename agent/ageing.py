"""Lets what is stored have its true age, and go when that is reached."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Never

import structlog

from agent.clock import WallClock
from agent.spool import Spool, SpoolError

_log = structlog.get_logger(__name__)

# Old finals are few and cheap to keep: looking for them often would only wear the disk.
_EXPIRE_EVERY_S = 600.0
# Well within the ten seconds in which the spool tells the stamps of a clock that was set from those of before.
_CLOCK_EVERY_S = 3.0


class Ageing:
    """Follows the wall clock, for the spool.

    Args:
        spool: what is stored.
        retention_s: how long a final is kept.
        looked: called after each look.

    """

    def __init__(self, spool: Spool, retention_s: float, looked: Callable[[], None]) -> None:
        self._spool = spool
        self._retention_s = retention_s
        self._looked = looked

    async def run(self) -> Never:
        """Look now and then, for ever."""
        clock, expired_at = WallClock(time.time(), _steady()), -math.inf
        while True:
            try:
                await self._follow(clock)
                if time.monotonic() >= expired_at + _EXPIRE_EVERY_S:
                    expired_at = time.monotonic()
                    dropped = await self._spool.expire(time.time() - self._retention_s)
                    _log.debug("spool.expired", finals=dropped)
            except SpoolError as error:
                _log.error("spool.failed", error=str(error))
            self._looked()
            await asyncio.sleep(_CLOCK_EVERY_S)

    async def _follow(self, clock: WallClock) -> None:
        """Have the spool know of a wall clock that was set. Nothing else that measures time goes by it."""
        now = time.time()
        by_s = clock.jumped(now, _steady())
        if by_s is not None:
            _log.warning("clock.jumped", by_s=round(by_s, 3))
            await self._spool.clock_jumped(by_s, now)
            clock.noted(by_s)


def _steady() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
