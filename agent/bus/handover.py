"""From the network thread to the event loop's, in order."""

import asyncio
from collections import deque
from collections.abc import Callable
from threading import Lock
from time import monotonic

# The loop is promised never to stall for 50 ms; others want their turn within the same 50.
_TURN_S = 0.005


class Handover:
    """Runs calls posted by another thread on the event loop, many at a turn.

    Waking the loop costs a system call and a turn, several times the price of the call itself: only the first
    post after a pause does it.

    Args:
        loop: where the calls run.
        failed: told of an exception that a call raised; the calls after it still run.

    """

    def __init__(self, loop: asyncio.AbstractEventLoop, failed: Callable[[Exception], None]) -> None:
        self._loop = loop
        self._failed = failed
        self._lock = Lock()
        self._calls: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def post(self, call: Callable[[], None]) -> None:
        """Have ``call`` run after all that was posted before; from any thread, and also after the loop's end."""
        with self._lock:
            self._calls.append(call)
            if self._scheduled:
                return
            self._scheduled = True
        try:
            self._loop.call_soon_threadsafe(self._run)
        except RuntimeError:  # the loop is closed: there is nobody left to tell
            self._calls.clear()

    def _run(self) -> None:
        ends = monotonic() + _TURN_S
        while True:
            with self._lock:
                if not self._calls:
                    self._scheduled = False
                    return
                call = self._calls.popleft()
            try:
                call()
            except Exception as error:  # noqa: BLE001  whatever it is, it is told
                self._failed(error)
            if monotonic() > ends:
                self._loop.call_soon(self._run)
                return
