"""The worker's life and death."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from agent.backoff import Backoff
from agent.engines.base import EngineLost, Started, Text
from agent.engines.local import LocalEngine
from agent.engines.watchdog import Patience
from tests.engines.conftest import new_engine
from tests.engines.running import answer, job, ready, serving

FRANCE = "What is the capital of France?"
IMPATIENT = Patience(least_s=0.1, most_s=0.2, load_s=10, watch_s=0.05)
_SAY_READY = """
import os, sys, time
from agent.engines.wire import Decoder, Progress, Ready, Started, Submit, encode
def say(message): os.write(1, encode(message))
say(Ready(100, "cpu", 0.0))
"""


def worker(body: str) -> list[str]:
    """Make the command of a worker that is ready at once, and then does as told."""
    return [sys.executable, "-c", _SAY_READY + body]


async def test_jobs_under_a_killed_worker_are_lost_and_the_next_one_runs(fresh_engine: LocalEngine) -> None:
    engine = fresh_engine
    jobs = [engine.run(job(f"{number} Tell me a story.", max_tokens=2000)) for number in range(2)]
    for events in jobs:
        async for event in events:
            if isinstance(event, Text):
                break
    assert engine._child
    os.kill(engine._child.pid, signal.SIGKILL)
    for events in jobs:
        with pytest.raises(EngineLost):
            async for _ in events:
                pass
    assert engine.health.state == "loading"
    assert "signal 9" in str(engine.health.detail)
    await ready(engine)

    assert (await answer(engine, job(FRANCE))).text == "The capital of France is Paris."


async def test_jobs_that_come_while_the_model_loads_wait_for_it(model_folder: Path) -> None:
    engine = new_engine(model_folder)
    async with serving(engine):
        while engine._child is None:  # noqa: ASYNC110  it takes a few turns of the loop, and says nothing then
            await asyncio.sleep(0)
        assert engine.health.state == "loading"

        assert (await answer(engine, job(FRANCE))).text == "The capital of France is Paris."


async def test_a_stopped_engine_leaves_no_process_and_loses_its_jobs(model_folder: Path) -> None:
    engine = new_engine(model_folder)
    async with serving(engine):
        await ready(engine)
        assert engine._child
        pid = engine._child.pid
        running = asyncio.create_task(answer(engine, job(FRANCE, max_tokens=2000)))
        await asyncio.sleep(0)
    with pytest.raises(EngineLost):
        await running

    assert not psutil.pid_exists(pid)
    assert engine.health.state == "loading"


async def test_a_job_for_an_engine_that_was_stopped_is_lost_to_it(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=worker("time.sleep(60)"))
    async with serving(engine):
        await ready(engine)
    with pytest.raises(EngineLost):
        await answer(engine, job(FRANCE))


async def test_a_worker_dies_with_a_parent_that_is_killed(model_folder: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tests.engines.conftest import new_engine\n"
        "from tests.engines.running import answer, job, ready, serving\n"
        "async def main():\n"
        "    engine = new_engine(Path(sys.argv[1]))\n"
        "    async with serving(engine):\n"
        "        await ready(engine)\n"
        "        begun = asyncio.Event()\n"
        "        running = asyncio.create_task(answer(engine, job('Tell me a story.', max_tokens=4000), begun))\n"
        "        await begun.wait()\n"
        "        print(engine._child.pid, file=sys.stderr, flush=True)\n"
        "        await running\n"
        "asyncio.run(main())\n",
        str(model_folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert parent.stderr
    worker = psutil.Process(int(await parent.stderr.readline()))
    parent.kill()
    await parent.wait()

    await asyncio.to_thread(worker.wait, 5)


async def test_a_folder_without_a_model_is_told_once_it_failed_twice_and_retried(
    model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    engine = new_engine(folder)
    seen = []
    async with serving(engine):
        while (health := await engine.changed()).state != "failed":
            seen.append(health.state)
        assert seen == ["loading"]
        assert health.detail == (
            "there is no model in the folder model: it has no genai_config.json; "
            "pull it with `edge-slm models pull`, or configure another folder"
        )
        shutil.copytree(model_folder, folder, dirs_exist_ok=True, copy_function=os.link)
        await ready(engine)

        assert engine.health.detail is None


async def test_a_model_that_cannot_be_loaded_is_told_by_its_name_and_the_librarys_reason_is_logged(
    model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder, copy_function=os.link)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").write_bytes(b"not a graph")
    engine = new_engine(folder)
    with capture_logs() as logged:
        async with serving(engine):
            while (health := await engine.changed()).state != "failed":
                pass

    assert health.detail == "the model model cannot be loaded: see why in the box's log, or pull it again"
    failed = next(entry for entry in logged if entry["event"] == "engine.load_failed")
    assert "Protobuf parsing failed" in failed["printed"]


async def test_a_worker_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=["/nonexistent/worker"])
    async with serving(engine):
        while (health := await engine.changed()).state != "failed":
            pass

    assert health.detail == "the inference process cannot be started (No such file or directory)"


async def test_a_worker_that_dies_while_it_loads_has_its_last_words_in_the_log_alone(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=[sys.executable, "-c", "raise SystemExit('no such library')"])
    with capture_logs() as logged:
        async with serving(engine):
            while (health := await engine.changed()).state != "failed":
                pass

    assert health.detail == ("the inference process ended while it loaded the model (exit code 1): see the box's log")
    failed = next(entry for entry in logged if entry["event"] == "engine.load_failed")
    assert (failed["log_level"], failed["printed"]) == ("warning", "no such library")


async def test_what_a_worker_printed_after_it_had_jobs_is_told_to_nobody(tmp_path: Path) -> None:
    dying = worker("os.write(2, b'the answer\\n'); sys.exit(3)")
    engine = new_engine(tmp_path, command=dying)
    with capture_logs() as logged:
        async with serving(engine):
            await ready(engine)
            while (health := await engine.changed()).state != "loading":
                pass

    assert health.detail == "the inference process died (exit code 3)"
    assert {entry["log_level"] for entry in logged if "the answer" in str(entry)} == {"debug"}


async def test_a_worker_that_speaks_no_frames_is_replaced(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=worker("os.write(1, b'the answer\\n'); time.sleep(60)"))
    with capture_logs() as logged:
        async with serving(engine):
            await ready(engine)
            while (health := await engine.changed()).state != "loading":
                pass

    assert health.detail == "the inference process died (it does not speak our frames)"
    assert {entry["log_level"] for entry in logged if "the answer" in str(entry)} == {"debug"}


async def test_a_worker_that_has_a_job_and_is_silent_for_too_long_is_replaced(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=worker("time.sleep(60)"), patience=IMPATIENT)
    async with serving(engine):
        await ready(engine)
        async with asyncio.timeout(10):
            with pytest.raises(EngineLost):
                await answer(engine, job(FRANCE))


async def test_a_silent_worker_is_replaced_though_nobody_waits_for_its_job_any_more(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=worker("time.sleep(60)"), patience=IMPATIENT)
    async with serving(engine):
        await ready(engine)
        waiting = asyncio.create_task(answer(engine, job(FRANCE)))
        await asyncio.sleep(0)
        waiting.cancel()
        async with asyncio.timeout(10):
            assert (await engine.changed()).state == "loading"


async def test_a_worker_that_looks_at_a_picture_may_be_silent_for_longer(tmp_path: Path) -> None:
    looking = worker("os.read(0, 65536); say(Started(1, 2500, 0, 2500)); time.sleep(60)")
    engine = new_engine(tmp_path, command=looking, patience=IMPATIENT)
    async with serving(engine):
        await ready(engine)
        events = engine.run(job(FRANCE))
        assert isinstance(await anext(events), Started)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await anext(events)


async def test_a_worker_that_has_looked_at_its_picture_may_be_silent_no_longer_than_others(tmp_path: Path) -> None:
    looked = "os.read(0, 65536); say(Started(1, 2500, 0, 2500)); say(Progress(1)); time.sleep(60)"
    engine = new_engine(tmp_path, command=worker(looked), patience=IMPATIENT)
    async with serving(engine):
        await ready(engine)
        async with asyncio.timeout(10):
            with pytest.raises(EngineLost):
                await answer(engine, job(FRANCE))


async def test_a_worker_without_jobs_may_be_silent(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=worker("time.sleep(60)"), patience=IMPATIENT)
    async with serving(engine):
        await ready(engine)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await engine.changed()


async def test_closing_a_job_does_not_wait_for_the_worker(tmp_path: Path) -> None:
    busy = worker("data = os.read(0, 65536); say(Started(1, 5, 0)); time.sleep(60)")
    engine = new_engine(tmp_path, command=busy)
    async with serving(engine):
        await ready(engine)
        events = engine.run(job(FRANCE))
        assert isinstance(await anext(events), Started)
        async with asyncio.timeout(0.3), aclosing(events):
            pass


async def test_what_a_library_prints_does_not_reach_the_frames(model_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "noisy.py"
    script.write_text(
        "import os, sys\n"
        "from agent.engines.worker import __main__ as worker\n"
        "load = worker.Model\n"
        "def noisy(*arguments):\n"
        '    os.write(1, b\'{"type":"Ready"}\\nprinted by native code\\n\')\n'
        "    print('and by Python', flush=True)\n"
        "    return load(*arguments)\n"
        "worker.Model = noisy\n"
        "sys.exit(worker.main())\n"
    )
    engine = new_engine(model_folder, command=[sys.executable, str(script)], backoff=Backoff(30, 30, random.random))
    async with serving(engine):
        await ready(engine)
        assert (await answer(engine, job(FRANCE))).text == "The capital of France is Paris."
        assert engine._child
        assert "printed by native code" in engine._child._lines
        assert "and by Python" in engine._child._lines
