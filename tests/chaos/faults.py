"""What goes wrong: signals to real processes, a link that is disturbed, a disk that is full."""

import asyncio
import os
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

from agent.contract.jobs import Key
from tests.boxes import Box
from tests.brokers import Broker
from tests.chaos.history import History, Outage
from tests.chaos.plan import Fault
from tests.chaos.proxy import Link
from tests.filesystems import full

# Between two starts of an agent that ended by itself.
_RESTART_S = 1.0
# A drain, and what may come on top of it. An agent that takes longer counts as one that did not end.
_END_S = 60.0
# Until there is a worker or a connection to hit. The agent starts a worker again after 30 s at the most, and connects
# again after 60 s; the broker or the agent may have been gone before that.
_AWAY_S = 120.0
_DELAY_S = 0.15


class Unit:
    """Keeps the agent running as systemd would, and tells deaths of its own from those that it was dealt.

    Args:
        box: the agent.
        spool: its file, which is looked into after each of its ends.
        history: where its deaths, and the finals that it had stored, are written down.

    """

    def __init__(self, box: Box, spool: Path, history: History) -> None:
        self._box = box
        self._spool = spool
        self._history = history
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._runs = asyncio.Event()
        self._ended = asyncio.Event()

    async def keep(self) -> None:
        """Start it whenever it is not running and may be, for ever."""
        try:
            while True:
                await self._may_run.wait()
                self._ended.clear()
                self._box.start()
                self._runs.set()
                await _ended(self._box.pid)
                self._runs.clear()
                assert self._box._process is not None
                code = await asyncio.to_thread(self._box._process.wait)
                await asyncio.to_thread(self._look_into_spool)
                self._ended.set()
                if self._may_run.is_set():
                    self._history.deaths.append(f"it ended by itself with status {code}")
                    await asyncio.sleep(_RESTART_S)
                elif code not in (0, -signal.SIGTERM, -signal.SIGKILL):
                    self._history.deaths.append(f"it ended upon a signal with status {code}")
        finally:
            await self._box.kill()
            self._look_into_spool()

    def _look_into_spool(self) -> None:
        """Take note of the finals that it had stored: it may have died before it said so anywhere."""
        now = time.time()
        try:
            for final in stored_finals(self._spool):
                self._history.stored.setdefault(final, now)
        except sqlite3.Error as error:
            self._history.deaths.append(f"it left a spool that cannot be read ({error})")

    async def pid(self) -> int:
        """Wait until it runs, and return its process id."""
        await self._runs.wait()
        return self._box.pid

    @asynccontextmanager
    async def down(self, number: signal.Signals) -> AsyncIterator[None]:
        """End it by a signal, and keep it down for the length of the block."""
        pid = await self.pid()
        self._may_run.clear()
        _send(pid, number)
        try:
            async with asyncio.timeout(_END_S):
                await self._ended.wait()
        except TimeoutError:
            self._history.deaths.append(f"it did not end within {_END_S:.0f} s of {number.name}")
            _send(pid, signal.SIGKILL)
            await self._ended.wait()
        try:
            yield
        finally:
            self._may_run.set()


class Faults:
    """Lets faults happen.

    Args:
        unit: the agent.
        box: the same, for its workers.
        broker: the broker.
        link: between the two.
        disk: the agent's, which is filled; None where there is none to fill.
        models: the folders of the text and the vision model.
        history: where the faults are counted.

    """

    def __init__(
        self,
        unit: Unit,
        box: Box,
        broker: Broker,
        link: Link,
        disk: Path | None,
        models: dict[str, str],
        history: History,
    ) -> None:
        self._unit = unit
        self._box = box
        self._broker = broker
        self._link = link
        self._disk = disk
        self._models = models
        self._history = history

    async def strike(self, fault: Fault) -> None:
        """Let a fault happen, and be over."""
        name = f"{fault.target}: {fault.how}"
        try:
            async with asyncio.timeout(_AWAY_S):
                pid = await self._there(fault.target)
        except TimeoutError:
            self._history.missed.append(f"{name} had nothing to hit for {_AWAY_S:.0f} s")
            return
        async with self._striking(fault, pid):
            self._history.struck[name] += 1
            with suppress(TimeoutError, ProcessLookupError):
                async with asyncio.timeout(fault.seconds):
                    # A stopped worker that the agent gives up is gone.
                    await (_ended(pid) if "worker" in fault.target else asyncio.Event().wait())

    async def _there(self, target: str) -> int:
        """Wait until a target can be hit; return its process id, or 0 for one whose process is no matter."""
        match target:
            case "agent":
                return await self._unit.pid()
            case "text worker" | "vision worker":
                return await self._worker(target)
            case "link":
                await self._link.opened()
        return 0

    @asynccontextmanager
    async def _striking(self, fault: Fault, pid: int) -> AsyncIterator[None]:
        match fault.target, fault.how:
            case "agent", "kill":
                async with self._unit.down(signal.SIGKILL):
                    yield
            case "agent", "restart":
                async with self._unit.down(signal.SIGTERM):
                    yield
            case "text worker" | "vision worker", "kill":
                _send(pid, signal.SIGKILL)
                yield
            case "agent" | "text worker" | "vision worker", "stop":
                with _stopped(pid):
                    yield
            case "broker", _:
                async with self._broker_struck(fault.how):
                    yield
            case "disk", "fill":
                assert self._disk is not None
                with full(self._disk):
                    yield
            case "link", _:
                with self._link_struck(fault.how):
                    yield

    @asynccontextmanager
    async def _broker_struck(self, how: str) -> AsyncIterator[None]:
        began = time.time()
        if how == "stop":
            self._broker.freeze()
            yield
            self._broker.thaw()
        else:
            await asyncio.to_thread(self._broker.kill)
            yield
            await asyncio.to_thread(self._broker.start)
        self._history.outages.append(Outage(how, began, time.time()))

    @contextmanager
    def _link_struck(self, how: str) -> Iterator[None]:
        match how:
            case "cut":
                self._link.cut()
                yield
            case "half-close":
                self._link.half_close()
                yield
            case "delay":
                with self._link.delayed(_DELAY_S):
                    yield
            case "black hole":
                with self._link.black_hole():
                    yield
            case "trickle":
                with self._link.trickling():
                    yield

    async def _worker(self, target: str) -> int:
        """Wait until the agent has started that worker, and return its process id."""
        folder = self._models[target.removesuffix(" worker")].encode()
        while True:
            with suppress(OSError):  # the agent, or the worker, has just ended
                for pid in self._box.workers:
                    if folder in _command(pid):
                        return pid
            await asyncio.sleep(0.01)  # /proc offers nothing to wait on


def stored_finals(spool: Path) -> list[tuple[Key, bytes]]:
    """Return the finals in the spool of an agent that is down, from a copy: nothing is done to its own file."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copy(spool.with_name(spool.name + suffix), folder)
        copy = Path(folder) / spool.name
        if not copy.exists():  # it died before it made one
            return []
        with closing(sqlite3.connect(copy)) as database:
            found = database.execute("SELECT client, id, payload FROM finals")
            return [(Key(client, job_id), payload) for client, job_id, payload in found]


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """Stop a process for a while."""
    _send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        _send(pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process, which may have ended just now."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def _ended(pid: int) -> None:
    """Wait for the end of a process, and leave it to be reaped."""
    loop, descriptor, ended = asyncio.get_running_loop(), os.pidfd_open(pid), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
