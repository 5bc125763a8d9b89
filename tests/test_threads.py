"""A thread that hangs is nobody's to wait for."""

import asyncio
import subprocess
import sys

import pytest

from agent.threads import apart

HUNG = """
import asyncio, threading
from agent.threads import apart
async def main():
    began = threading.Event()
    reading = asyncio.create_task(apart(lambda: (began.set(), threading.Event().wait())))
    while not began.is_set():
        await asyncio.sleep(0.001)
    reading.cancel()
asyncio.run(main())
"""


async def test_what_was_done_apart_comes_back() -> None:
    assert await apart(lambda: 7) == 7


async def test_what_failed_apart_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await apart(lambda: 1 / 0)


async def test_what_ends_after_nobody_waits_any_more_is_forgotten() -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    waiting = asyncio.create_task(apart(lambda: asyncio.run_coroutine_threadsafe(ended.wait(), loop).result()))
    await asyncio.sleep(0)
    waiting.cancel()
    ended.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_a_process_ends_though_a_thread_of_it_hangs() -> None:
    assert subprocess.run([sys.executable, "-c", HUNG], timeout=10, check=False).returncode == 0
