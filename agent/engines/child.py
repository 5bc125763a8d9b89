"""A worker process as its parent has it: two pipes of frames, and what it prints."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeAlias, cast

import structlog

from agent.engines.watchdog import Effort
from agent.engines.wire import Decoder, Message, WireError, encode

_log = structlog.get_logger(__name__)

_STDIN, _STDOUT = 0, 1
# The last words of a process that dies: a traceback's end is within them.
_LINES = 20
_LINE = 500
# How long a process may outlive its pipes, and they it, in seconds. They end together, but for mistakes: a library that
# closes a descriptor that is not its own, or starts a process that keeps ours.
_REST_S = 1.0
# How long the end of a process that was killed is waited for, in seconds. One that waits in the kernel, for a device's
# driver or a disk, ends when that lets go of it, which may be never.
_END_S = 2.0


Heard: TypeAlias = "Callable[[Child, Message], None]"


class Child(asyncio.SubprocessProtocol):
    """A running worker. Start it with `start`, and `end` it in every case.

    It is a protocol and not a pair of streams because a frame then costs one turn of the event loop less, of
    three, on cores that inference could use.

    Args:
        heard: is given this and every message of it, in order.

    Attributes:
        gone: done when the process is dead and all that it said was heard.
        killed: whether it was sent its end, which may come late.
        fault: what was wrong with what it said; it is killed for it.

    """

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._decoder = Decoder()
        self._printed = b""
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._room = asyncio.Event()
        self._room.set()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.killed = False
        self.fault: str | None = None

    def __repr__(self) -> str:
        return f"<Child {self.pid}, {self.fate if self.gone.done() else 'running'}>"

    @classmethod
    async def start(cls, command: Sequence[str], heard: Heard) -> Self:
        """Start a process.

        Raises:
            OSError: it cannot be started.

        """
        # It decodes what strangers send, so it is not to know the agent's passwords.
        env = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_SLM_")}
        _, child = await asyncio.get_running_loop().subprocess_exec(lambda: cls(heard), *command, env=env)
        return child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._pid

    @property
    def private_bytes(self) -> int:
        """Memory that is its own, wherever the kernel keeps it; nothing once it is gone.

        Not what is resident: a leak is swapped out before all else, and a model's file comes and goes with the cache.
        """
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "VmSwap:")))

    @property
    def effort(self) -> Effort:
        """What it has done so far, all its threads together; nothing once it is gone."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return Effort()
        # The name, in brackets, may have anything in it. See proc(5): majflt is the twelfth field, then come cmajflt,
        # utime and stime.
        faults, _, user, system = map(int, stat.rpartition(")")[2].split()[9:13])
        return Effort(user + system, faults)

    @property
    def fate(self) -> str:
        """How it ended."""
        code = self._process.get_returncode() or 0
        return f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"

    @property
    def last_line(self) -> str | None:
        """The last that it printed. Once it has had a job, that may hold words of it: it is for nobody to see."""
        return self._lines[-1] if self._lines else None

    def tell(self, message: Message) -> None:
        """Put a small message on its way, without waiting. To a process that is gone, it is lost."""
        if not self._stdin.is_closing():
            self._stdin.write(encode(message))

    async def send(self, message: Message) -> None:
        """Put a message on its way, and wait until the pipe has room again."""
        self.tell(message)
        await self._room.wait()

    def kill(self) -> None:
        """End it now. It has nothing to save, and a native call may last longer than anybody would wait."""
        self.killed = True
        self._room.set()  # nobody reads what is still to be written
        if self._process.get_returncode() is None:
            # Not the transport's `kill`: it looks first whether the process is dead, and so takes the exit code
            # away from asyncio's watcher, which then reports 255.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """End it, if it still runs, and return its resources; one that cannot die now is left to itself."""
        self.kill()
        self._stdin.close()
        try:
            await asyncio.wait([self.gone], timeout=_END_S)
        finally:
            self._process.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the process and the pipe to it."""
        self._process = cast("asyncio.SubprocessTransport", transport)
        self._pid = self._process.get_pid()
        self._stdin = cast("asyncio.WriteTransport", self._process.get_pipe_transport(_STDIN))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Pass on the messages that are complete, or log the lines."""
        if fd != _STDOUT:
            *lines, self._printed = (self._printed + data).split(b"\n")
            if len(self._printed) > _LINE:
                lines, self._printed = [*lines, self._printed], b""
            # Of a flood only the end: 64 KB of short lines, one read, took 0.2 s to log.
            for line in lines[-_LINES:]:
                self._note(line)
        elif self.fault is None:
            try:
                for message in self._decoder.feed(data):
                    self._heard(self, message)
            except WireError as error:
                # What it said instead may be words of a job, and the fault is told to everybody.
                _log.debug("worker.misspoke", pid=self.pid, error=str(error))
                self.fault = "it does not speak our frames"
                self.kill()

    def _note(self, line: bytes) -> None:
        text = line[:_LINE].decode("utf-8", "replace").strip()
        if text:
            self._lines.append(text)
            _log.debug("worker.printed", pid=self.pid, line=text)

    def pause_writing(self) -> None:
        """Let `send` wait."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Let `send` go on."""
        self._room.set()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """End it if it hears or says nothing any more: no job of it would come to an end."""
        del exc
        if fd in (_STDIN, _STDOUT):
            asyncio.get_running_loop().call_later(_REST_S, self.kill)

    def process_exited(self) -> None:
        """Read the pipes to their ends, unless they have none."""
        asyncio.get_running_loop().call_later(_REST_S, self._process.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the process is dead and its pipes are read to their ends."""
        del exc
        self._note(self._printed)
        self._room.set()
        if not self.gone.done():
            self.gone.set_result(None)
