"""Waiting for plain state, which offers no event."""

import asyncio
from collections.abc import Callable


async def eventually(found: Callable[[], bool], every_s: float = 0.0) -> None:
    """Let everything else on the loop run until ``found`` holds; the test's timeout bounds it.

    Where much is to be done meanwhile, look now and then: whoever looks at every turn takes the processor from it.
    """
    while not found():  # noqa: ASYNC110
        await asyncio.sleep(every_s)
