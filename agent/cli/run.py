"""``edge-slm run``: the daemon as a process, and what signals mean to it."""

import argparse
import asyncio
import ctypes
import signal
import sys
from functools import partial

import structlog

from agent import logs
from agent.layers import load
from agent.remote import Remote
from agent.settings import Settings
from agent.supervisor import Supervisor
from agent.systemd import Systemd

_log = structlog.get_logger(__name__)

# Of glibc's mallopt. With an arena for each thread, and blocks of up to 32 MB that it does not give back, the agent
# went from 51 to 130 MB under a flood of hostile messages.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES = 128 << 10


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    _give_memory_back()
    asyncio.run(_serve(Remote(partial(load, args.config, args.set))))
    return 0


def _give_memory_back() -> None:
    """Have large messages leave the process's memory when they are done with, before there is a second thread."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none, and needs none
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


async def _serve(remote: Remote) -> None:
    """Run a box until SIGTERM or SIGINT; a second signal ends the drain at once. SIGHUP has it configured anew.

    Raises:
        UserError: it cannot start; the message says what to do.

    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    supervisor = Supervisor(
        remote.configure,
        desired=remote.desired,
        adopted=_log_as_configured,
        shelve=remote.shelve,
        systemd=Systemd(),
    )
    serving = asyncio.create_task(supervisor.run(stop), name="supervisor")
    obeying = asyncio.create_task(remote.run(supervisor.change, supervisor.report, stop), name="remote")

    def on_signal() -> None:
        if stop.is_set():
            _log.warning("service.stopped_at_once")
            serving.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if (
        sys.stdin is None or not sys.stdin.isatty()
    ):  # none where it was closed; at a terminal it says that the terminal is gone
        loop.add_signal_handler(signal.SIGHUP, supervisor.ask)
    try:
        await asyncio.wait([serving, obeying], return_when=asyncio.FIRST_COMPLETED)
        if obeying.done():
            obeying.result()  # it ends by a defect alone
        await serving
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        for task in (serving, obeying):
            task.cancel()
        await asyncio.wait([serving, obeying])


def _log_as_configured(settings: Settings) -> None:
    logs.configure(settings.log.level, settings.log.format)
