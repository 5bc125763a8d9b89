"""The programs that the demo starts, and stops again."""

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Never, Self, TypeVar

from agent.errors import UserError

_T = TypeVar("_T")

_LOG_LINES = 5


class DemoError(UserError):
    """The demo cannot go on."""


class Child:
    """A running program in a session of its own, so that Ctrl-C reaches the demo alone, which stops all in order.

    Args:
        name: what to call it towards the user.
        process: it.
        log: where its output goes; None if that is the user's terminal.

    """

    def __init__(self, name: str, process: Process, log: Path | None) -> None:
        self.name = name
        self._process = process
        self._log = log

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self._process.pid} returncode={self._process.returncode}>"

    @classmethod
    async def start(cls, name: str, command: Sequence[str | Path], log: Path | None = None) -> Self:
        """Start a program; its output goes to a new ``log``, or to the user."""
        # Should the demo be killed outright, the kernel ends its children; setpriv is in every Debian.
        tied = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        output = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            process = await asyncio.create_subprocess_exec(
                *tied, *command, stdin=DEVNULL, stdout=output, stderr=output and STDOUT, start_new_session=True
            )
        finally:
            if output is not None:
                os.close(output)
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """The process id of the program itself: setpriv replaces itself by what it starts."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait until it ends, and return its exit status."""
        return await self._process.wait()

    async def lost(self) -> Never:
        """Wait until it ends, which it should not.

        Raises:
            DemoError: it did; with the last lines of its log.

        """
        status = await self.wait()
        said = self._last_lines()
        raise DemoError(f"{self.name} ended by itself (status {status}): {said}")

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, and after ``grace_s`` seconds, or once it has, kill what is left of its session."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    def _last_lines(self) -> str:
        if self._log is None:
            return "see above"
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join([f"see {self._log}, which ends", *(f"    {line}" for line in lines)])


async def while_alive(work: Coroutine[object, object, _T], *children: Child) -> _T:
    """Do ``work``, but give it up as soon as one of ``children`` ends.

    Raises:
        DemoError: one did.

    """
    doing = asyncio.create_task(work)
    watching = [asyncio.create_task(child.lost()) for child in children]
    try:
        await asyncio.wait([doing, *watching], return_when=asyncio.FIRST_COMPLETED)
        # A dead child explains why the work failed better than the work does.
        for watch in watching:
            if watch.done():
                await watch
        return await doing
    finally:
        for task in (doing, *watching):
            task.cancel()
        await asyncio.gather(doing, *watching, return_exceptions=True)
