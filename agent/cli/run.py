"""``edge-slm run``: the daemon as a process, from its state directory's opening to its last signal."""

import argparse
import asyncio
import ctypes
import signal
from collections.abc import Mapping

import structlog

from agent import logs
from agent.engines.base import Engine
from agent.errors import UserError
from agent.layers import load
from agent.placement import Station
from agent.service import Service
from agent.settings import Settings
from agent.spool import Room, Spool, SpoolSick
from agent.stations import local_engines

_log = structlog.get_logger(__name__)

# How long a shutdown may take beyond `drain_s` before it is ended as by a second signal: five for the intake, five for
# the last finals, six for a broker that does not answer the goodbye, and room. What hangs for longer is something that
# nobody thought of, such as a disk under the very first read.
_END_S = 20.0
# Between two tries to open the spool on a disk that is full, read-only or failing.
_SICK_DISK_S = 10.0
# Of glibc's mallopt. With an arena for each thread, and blocks of up to 32 MB that it does not give back, the agent
# went from 51 to 130 MB under a flood of hostile messages.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES = 128 << 10


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    _give_memory_back()
    settings = load(args.config, args.set).settings
    logs.configure(settings.log.level, settings.log.format)
    asyncio.run(_serve(settings))
    return 0


def _give_memory_back() -> None:
    """Have large messages leave the process's memory when they are done with, before there is a second thread."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none, and needs none
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


async def _serve(settings: Settings) -> None:
    """Run a box until SIGTERM or SIGINT; a second signal ends the drain at once.

    Raises:
        ModelError, SpoolError, BusError: it cannot start; the message says what to do.

    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    engines = local_engines(settings)
    opening = asyncio.create_task(_opened(settings), name="spool")
    running = asyncio.create_task(_run(settings, engines, opening, stop), name="service")

    def stop_at_once() -> None:
        _log.warning("service.stopped_at_once")
        running.cancel()

    def on_signal() -> None:
        if stop.is_set():
            stop_at_once()
            return
        stop.set()
        opening.cancel()  # before the spool is open there is nothing to drain; afterwards this does nothing
        loop.call_later(settings.drain_s + _END_S, stop_at_once)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await running
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _run(
    settings: Settings, engines: Mapping[Station, Engine], opening: asyncio.Task[Spool], stop: asyncio.Event
) -> None:
    spool = await opening
    try:
        service = Service(settings, spool, engines)
    except UserError:
        await spool.close()
        raise
    try:
        await service.run(stop)
    except Exception:
        _log.exception("service.failed")
        raise


async def _opened(settings: Settings) -> Spool:
    """Open the spool, however long its disk is sick: the box stays offline, and the broker keeps the requests."""
    room = Room(settings.spool.max_jobs, settings.spool.max_bytes)
    while True:
        try:
            return await Spool.open(settings.spool_file, room)
        except SpoolSick as sick:
            _log.error("spool.sick", error=str(sick), retry_in_s=_SICK_DISK_S)
        await asyncio.sleep(_SICK_DISK_S)
