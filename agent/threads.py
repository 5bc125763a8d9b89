"""Work that blocks, in a thread that nobody has to wait for."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


async def apart(work: Callable[[], _T]) -> _T:
    """Do something that only reads, and that may hang, as a file does on a disk elsewhere; raises what it raises.

    Unlike `asyncio.to_thread`, whose threads a process waits for before it ends: without limit, in Python 3.11.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def tell(result: Callable[[], None]) -> None:
        if not done.done():  # nobody waits for it any more
            result()

    def run() -> None:
        try:
            found = work()
        except Exception as error:  # noqa: BLE001  it is for whoever waits
            failure = error
            result: Callable[[], None] = lambda: done.set_exception(failure)  # noqa: E731
        else:
            result = lambda: done.set_result(found)  # noqa: E731
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=run, name="apart", daemon=True).start()
    return await done
