"""A worker process as its parent has it: two pipes of frames, and what it prints."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, cast

import structlog

from agent.engines.wire import Decoder, Message, encode

_log = structlog.get_logger(__name__)

_READ = 64 << 10
# The last words of a process that dies: a traceback's end is within them.
_LINES = 20
_LINE = 500


class Child:
    """A running worker. Start it with `start`, and `end` it in every case."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)  # a pipe, see `start`, as the others
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._stderr = cast("asyncio.StreamReader", process.stderr)
        self._lines: deque[str] = deque(maxlen=_LINES)

    def __repr__(self) -> str:
        return f"<Child {self.pid}, {'running' if self._process.returncode is None else self.fate}>"

    @classmethod
    async def start(cls, command: Sequence[str]) -> Self:
        """Start a process.

        Raises:
            OSError: it cannot be started.

        """
        return cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def resident_bytes(self) -> int:
        """Memory it has in use, 0 once it is gone."""
        with suppress(OSError, IndexError):
            for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) << 10
        return 0

    @property
    def fate(self) -> str:
        """How it ended, and the last that it printed."""
        code = self._process.returncode or 0
        how = f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"
        return f"{how}, having printed: {self._lines[-1]}" if self._lines else how

    def tell(self, message: Message) -> None:
        """Put a small message on its way, without waiting. To a process that is gone, it is lost."""
        if not self._stdin.is_closing():
            self._stdin.write(encode(message))

    async def send(self, message: Message) -> None:
        """Put a message on its way, and wait until the pipe has room again.

        Raises:
            ConnectionError: the process is gone.

        """
        self.tell(message)
        await self._stdin.drain()

    async def messages(self) -> AsyncGenerator[Message, None]:
        """Yield what it says until it is gone.

        Raises:
            WireError: what it says are no frames.

        """
        decoder = Decoder()
        while data := await self._stdout.read(_READ):
            for message in decoder.feed(data):
                yield message

    async def log(self) -> None:
        """Log what it prints, line by line, until it is gone."""
        rest = b""
        while data := await self._stderr.read(_READ):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > _LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._note(line)
        self._note(rest)

    def _note(self, line: bytes) -> None:
        text = line[:_LINE].decode("utf-8", "replace").strip()
        if text:
            self._lines.append(text)
            _log.debug("worker.printed", pid=self.pid, line=text)

    def kill(self) -> None:
        """End it now. It has nothing to save, and a native call may last longer than anybody would wait."""
        if self._process.returncode is None:
            # Not `Process.kill`: it looks first whether the process is dead, and so takes the exit code away
            # from asyncio's watcher, which then reports 255.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """End it, if it still runs, and return its resources."""
        self.kill()
        self._stdin.close()
        await self._process.wait()
