"""Calls that may hang, each in a thread that nobody waits for."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


def begun(call: Callable[[], _T]) -> "Future[_T]":
    """Start a call.

    Its thread is a daemon: at its end Python waits for any other, and a name look-up cannot be cut short.
    """
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001  it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def look_up(host: str, patience_s: float) -> None:
    """Find a host's addresses.

    Raises:
        OSError: it has none, or nobody answered in so many seconds; the resolver itself would ask for ten and more.

    """
    try:
        begun(lambda: socket.getaddrinfo(host, None)).result(patience_s)
    except TimeoutError:
        raise socket.gaierror(socket.EAI_AGAIN, "no answer from the name server") from None
