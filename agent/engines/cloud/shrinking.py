"""Pictures made fit to leave the box, each job's by a process that lives no longer than that takes."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress

from agent.contract.errors import Code, JobError
from agent.engines.cloud.bundle import REFUSED, pack, unpack

# 0.13 s for 640 x 480 and 0.2 s for 1920 x 1080 on two cores, of which 0.11 s are Python's start. One that stayed would
# hold 30 MB for what happens now and then, and what a picture did to it would be there for the next.
# -P: a folder named "agent" where the daemon was started must not be taken for ours.
_COMMAND = (sys.executable, "-P", "-m", "agent.engines.cloud.shrink")
# The rest wait: each takes up to 450 MB, and a processor that the models want.
_AT_ONCE = 2
# It ends itself after 30 s of processor time, of which it may have no more than half.
_TIMEOUT_S = 60.0
# What may come back besides pictures: their lengths, or a refusal.
_BESIDES = 4096


class Shrinker:
    """Makes pictures small, and no more of them than they show.

    Args:
        command: what is run for it, before its argument.
        timeout_s: how long that may take, in seconds.

    """

    def __init__(self, command: Sequence[str] = _COMMAND, timeout_s: float = _TIMEOUT_S) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def shrunk(self, pictures: Sequence[bytes], limit: int) -> list[bytes]:
        """Return pictures as JPEGs without metadata, whose base64 has less than ``limit`` characters in all.

        Raises:
            JobError: one cannot be decoded, they are too many, or the box cannot do it now.

        """
        async with self._room:
            try:
                async with asyncio.timeout(self._timeout_s):
                    code, answer = await self._ask(pictures, limit)
            except TimeoutError:
                raise _failed("it took too long") from None
        with suppress(ValueError):
            files = unpack(answer)
            if code == REFUSED:
                word, sentence = files
                raise JobError(Code(word.decode()), sentence.decode())
            if code == 0 and len(files) == len(pictures):
                return files
        raise _failed("the process for it failed")

    async def _ask(self, pictures: Sequence[bytes], limit: int) -> tuple[int, bytes]:
        """Run a process to its end; return its exit code and what it said."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, str(limit), stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=_environment()
            )
        except OSError as error:
            raise _failed(f"the process for it cannot be started, {error.strerror}") from None
        try:
            answer = await _told(process, pack(pictures), limit + _BESIDES)
            return await process.wait(), answer
        finally:
            await _end(process)


async def _told(process: Process, question: bytes, most: int) -> bytes:
    """Give a process its input; return its output to the end, of ``most`` bytes at the most."""
    assert process.stdin is not None  # noqa: S101  both are pipes
    assert process.stdout is not None  # noqa: S101
    with suppress(ConnectionError):  # it ended before it has read all; its exit code says why
        process.stdin.write(question)
        await process.stdin.drain()
    process.stdin.close()
    try:
        await process.stdout.readexactly(most + 1)
    except asyncio.IncompleteReadError as all_of_it:
        return all_of_it.partial
    raise _failed("the process for it failed")


async def _end(process: Process) -> None:
    """End a process, if it still runs: it has nothing to save."""
    if process.returncode is None:
        # Not `Process.kill`, which takes the exit code away from asyncio's watcher; see `agent.engines.child`.
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    await process.communicate()  # the pipes are closed when they are read to their ends


def _environment() -> dict[str, str]:
    """Return what the process needs of ours: not our secrets, nor a thread for each core."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_SLM_")}
    return {**ours, "OPENBLAS_NUM_THREADS": "1"}


def _failed(why: str) -> JobError:
    sentence = f"the pictures could not be made small enough for the cloud, {why}: send smaller ones, or try again"
    return JobError(Code.CLOUD_UNAVAILABLE, sentence)
