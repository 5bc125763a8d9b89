"""Work that may hang, each in a thread that nobody has to wait for."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


def begun(work: Callable[[], _T]) -> "Future[_T]":
    """Start something.

    Its thread is a daemon: at its end Python waits for any other, and neither a name look-up nor a file on a disk
    elsewhere can be cut short.
    """
    future: Future[_T] = Future()
    future.set_running_or_notify_cancel()  # a wait may be canceled, and this not: the thread has its result to put

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001  it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="apart", daemon=True).start()
    return future


async def apart(work: Callable[[], _T]) -> _T:
    """Do something that only reads, and that may hang; raises what it raises.

    Unlike `asyncio.to_thread`, whose threads a process waits for before it ends: without limit, in Python 3.11.
    """
    return await asyncio.wrap_future(begun(work))
