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
        spool: what is stored. This lives as long as it is open: a clock that is set while nobody looks is found out.

    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._clock = WallClock(time.time(), _steady())

    async def run(self, retention_s: float, looked: Callable[[], None]) -> Never:
        """Look now and then, for ever.

        Args:
            retention_s: how long a final is kept.
            looked: called after each look.

        """
        expired_at = -math.inf
        while True:
            try:
                await self.look()
                if time.monotonic() >= expired_at + _EXPIRE_EVERY_S:
                    expired_at = time.monotonic()
                    dropped = await self._spool.expire(time.time() - retention_s)
                    _log.debug("spool.expired", finals=dropped)
            except SpoolError as error:
                _log.error("spool.failed", error=str(error))
            looked()
            await asyncio.sleep(_CLOCK_EVERY_S)

    async def look(self) -> None:
        """Have the spool know of a wall clock that was set. Nothing else that measures time goes by it.

        Raises:
            SpoolError: it was, and that could not be stored; it is told again.

        """
        now = time.time()
        by_s = self._clock.jumped(now, _steady())
        if by_s is not None:
            _log.warning("clock.jumped", by_s=round(by_s, 3))
            # Before: whoever is cancelled while the spool does it has told it all the same.
            self._clock.noted(by_s)
            try:
                await self._spool.clock_jumped(by_s, now)
            except SpoolError:
                self._clock.noted(-by_s)
                raise


def _steady() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
