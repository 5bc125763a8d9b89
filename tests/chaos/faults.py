"""What goes wrong: signals to real processes, a link that is disturbed, a disk that is full."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from tests.boxes import Box
from tests.brokers import Broker
from tests.chaos.history import History
from tests.chaos.plan import Fault
from tests.chaos.proxy import Link
from tests.filesystems import full

# Between two starts of an agent that ended by itself.
_RESTART_S = 1.0
# A drain, and what may come on top of it. An agent that takes longer counts as one that did not end.
_END_S = 60.0
_DELAY_S = 0.15


class Unit:
    """Keeps the agent running as systemd would, and tells deaths of its own from those that it was dealt."""

    def __init__(self, box: Box, history: History) -> None:
        self._box = box
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
                self._ended.set()
                if self._may_run.is_set():
                    self._history.deaths.append(f"it ended by itself with status {code}")
                    await asyncio.sleep(_RESTART_S)
                elif code not in (0, -signal.SIGTERM, -signal.SIGKILL):
                    self._history.deaths.append(f"it ended upon a signal with status {code}")
        finally:
            await self._box.kill()

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
        if fault.target == "disk" and self._disk is None:
            return
        async with self._striking(fault):
            self._history.struck[f"{fault.target}: {fault.how}"] += 1
            await asyncio.sleep(fault.seconds)

    @asynccontextmanager
    async def _striking(self, fault: Fault) -> AsyncIterator[None]:
        match fault.target, fault.how:
            case "agent", "kill":
                async with self._unit.down(signal.SIGKILL):
                    yield
            case "agent", "restart":
                async with self._unit.down(signal.SIGTERM):
                    yield
            case "agent", "stop":
                with _stopped(await self._unit.pid()):
                    yield
            case ("text worker" | "vision worker") as target, "kill":
                _send(await self._worker(target), signal.SIGKILL)
                yield
            case ("text worker" | "vision worker") as target, "stop":
                with _stopped(await self._worker(target)):
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
        if how == "stop":
            self._broker.freeze()
            yield
            self._broker.thaw()
        else:
            await asyncio.to_thread(self._broker.kill)
            yield
            await asyncio.to_thread(self._broker.start)

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
    """Wait for the end of a child, and leave it to be reaped."""
    loop, descriptor, ended = asyncio.get_running_loop(), os.pidfd_open(pid), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
