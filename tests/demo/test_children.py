"""The demo's child processes."""

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest

from agent.demo.children import Child, DemoError, while_alive

_FOREVER = "import os, time; os.write(1, b'up'); time.sleep(600)"
_DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + _FOREVER


async def _started(script: str, folder: Path) -> tuple[Child, str]:
    """Start a Python script, and return it and what it writes first, as soon as it does."""
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    # Python opens a pipe for both ways so that neither end waits for the other.
    said = os.open(fifo, os.O_RDWR)
    child = await Child.start("the box", [sys.executable, "-c", script], fifo)
    try:
        return child, (await asyncio.to_thread(os.read, said, 1024)).decode()
    finally:
        os.close(said)


async def test_a_child_that_ends_is_reported_with_the_last_lines_of_its_log(tmp_path: Path) -> None:
    script = "for n in range(9): print(f'line {n}')\nraise SystemExit(7)"
    child = await Child.start("the box", [sys.executable, "-c", script], tmp_path / "log")
    with pytest.raises(DemoError, match=r"(?s)^the box ended by itself \(status 7\).*line 8$") as caught:
        await child.lost()
    assert "line 3" not in str(caught.value)


async def test_stop_lets_a_child_that_listens_end_by_itself(tmp_path: Path) -> None:
    child, _ = await _started(_FOREVER, tmp_path)
    async with asyncio.timeout(10):
        await child.stop(grace_s=600)
    assert await child.wait() == -15


async def test_stop_kills_a_child_that_does_not_listen(tmp_path: Path) -> None:
    child, _ = await _started(_DEAF, tmp_path)
    await child.stop(grace_s=0.05)
    assert await child.wait() == -9


async def test_stop_is_idempotent(tmp_path: Path) -> None:
    child = await Child.start("the box", ["true"], tmp_path / "log")
    await child.wait()
    await child.stop(grace_s=1)
    await child.stop(grace_s=1)


async def test_stop_leaves_no_grandchild(tmp_path: Path) -> None:
    child, pid = await _started("import subprocess; subprocess.run('echo $$; exec sleep 600', shell=True)", tmp_path)
    grandchild = psutil.Process(int(pid))
    await child.stop(grace_s=600)
    psutil.wait_procs([grandchild], timeout=10)
    assert not grandchild.is_running()


async def test_work_is_given_up_when_a_child_dies(tmp_path: Path) -> None:
    child = await Child.start("the box", ["false"], tmp_path / "log")
    with pytest.raises(DemoError, match=r"^the box ended by itself \(status 1\)"):
        await while_alive(asyncio.Event().wait(), child)


async def test_work_that_ends_first_gives_its_result(tmp_path: Path) -> None:
    child, _ = await _started(_FOREVER, tmp_path)
    try:
        assert await while_alive(asyncio.sleep(0, "done"), child) == "done"
    finally:
        await child.stop(grace_s=10)


async def test_a_program_that_is_not_there_is_reported(tmp_path: Path) -> None:
    child = await Child.start("the box", [tmp_path / "nothing"], tmp_path / "log")
    with pytest.raises(DemoError, match="No such file"):
        await child.lost()
