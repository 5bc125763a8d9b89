"""Waiting for plain state, which offers no event."""

import asyncio
from collections.abc import Callable


async def eventually(found: Callable[[], bool]) -> None:
    """Let everything else on the loop run until ``found`` holds; the test's timeout bounds it."""
    while not found():  # noqa: ASYNC110
        await asyncio.sleep(0)
