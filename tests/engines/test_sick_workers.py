"""Workers that misbehave: none costs the agent a job, a task, a descriptor or its peace."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.contract.errors import Code, JobError
from agent.engines import child, local, wire
from agent.engines.base import EngineLost
from agent.engines.local import LocalEngine
from tests.engines.conftest import new_engine
from tests.engines.running import PHOTOGRAPH, answer, job, ready, serving, shown
from tests.engines.workers import IMPATIENT, worker
from tests.waiting import eventually

ANSWERING = """
for message in told():
    if isinstance(message, Submit): {before}; answer(message.job); {after}
"""


def answering(before: str = "pass", after: str = "pass") -> list[str]:
    return worker(ANSWERING.format(before=before, after=after))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def lost(engine: LocalEngine) -> None:
    while engine.health.state == "ready":
        await engine.changed()


@pytest.fixture
def undying(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Have nothing end a process, as if it waited in the kernel for a disk, until this is undone."""
    monkeypatch.setattr(os, "kill", lambda *_: None)
    monkeypatch.setattr(child, "_END_S", 0.1)
    monkeypatch.setattr(local, "_DEATH_S", 0.1)
    return monkeypatch


async def test_a_stopped_engine_does_not_wait_for_a_worker_that_cannot_die(
    tmp_path: Path, undying: pytest.MonkeyPatch
) -> None:
    engine = new_engine(tmp_path, command=worker("time.sleep(60)"))
    async with asyncio.timeout(10), serving(engine):
        await ready(engine)
        assert engine._child
        left = engine._child

    assert (left.gone.done(), engine.stuck) == (False, True)
    undying.undo()
    left.kill()
    await left.gone
    await eventually(lambda: not engine.stuck)


async def test_a_worker_that_cannot_die_is_told_loses_its_jobs_and_is_replaced_only_when_it_has_died(
    tmp_path: Path, undying: pytest.MonkeyPatch
) -> None:
    engine = new_engine(tmp_path, command=worker("os.read(0, 100); time.sleep(60)"), patience=IMPATIENT)
    async with serving(engine):
        await ready(engine)
        assert engine._child
        stuck = engine._child
        with pytest.raises(EngineLost):  # though it still wrote its picture
            await answer(engine, shown("x", PHOTOGRAPH * 40))
        while engine.health.state != "failed":
            await engine.changed()
        with pytest.raises(JobError) as refused:
            await answer(engine, job("x"))
        assert (refused.value.code, refused.value.message) == (
            Code.MODEL_UNAVAILABLE,
            "the inference process cannot be ended: restart the box",
        )
        assert engine._child is stuck
        undying.undo()
        stuck.kill()
        await ready(engine)
        assert engine._child is not stuck


async def test_a_job_waits_out_a_worker_that_is_killed_while_it_loads(model_folder: Path) -> None:
    engine = new_engine(model_folder)
    async with serving(engine):
        await eventually(lambda: engine._child is not None)
        assert engine._child
        asked = asyncio.create_task(answer(engine, job("What is the capital of France?")))
        os.kill(engine._child.pid, signal.SIGKILL)

        assert (await asked).text == "The capital of France is Paris."


async def test_a_load_that_does_nothing_is_ended_and_tried_again(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=[sys.executable, "-c", "import signal; signal.pause()"], patience=IMPATIENT)
    async with serving(engine):
        while (health := await engine.changed()).state != "failed":
            pass

    assert str(health.detail).startswith("the inference process hung while it loaded the model")


async def test_a_stopped_worker_is_killed_and_its_job_is_lost_to_it(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=answering(before="os.kill(os.getpid(), 19)"), patience=IMPATIENT)
    async with serving(engine):
        with pytest.raises(EngineLost):
            await answer(engine, job("x"))
        assert (engine.health.state, engine.health.detail) == ("loading", "the inference process hung and is ended")


async def test_a_worker_killed_amid_a_picture_that_is_half_written_loses_the_job_alone(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=worker("os.read(0, 100); time.sleep(60)"))
    async with serving(engine):
        await ready(engine)
        asked = asyncio.create_task(answer(engine, shown("x", PHOTOGRAPH * 40)))
        assert engine._child
        writing = engine._child
        await eventually(lambda: not writing._room.is_set())
        os.kill(writing.pid, signal.SIGKILL)
        with pytest.raises(EngineLost):
            await asked
        await ready(engine)


async def test_a_worker_that_closes_its_output_is_replaced_though_it_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_REST_S", 0.1)
    engine = new_engine(tmp_path, command=worker("os.close(1); time.sleep(60)"))
    async with serving(engine):
        await ready(engine)
        async with asyncio.timeout(5):
            await lost(engine)


async def test_a_dead_worker_is_replaced_though_a_process_of_its_own_holds_the_pipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_REST_S", 0.1)
    holder = tmp_path / "holder"
    forking = f"pid = os.fork()\nif pid: open({str(holder)!r}, 'w').write(str(pid)); os._exit(0)\ntime.sleep(60)"
    engine = new_engine(tmp_path, command=worker(forking))
    async with serving(engine):
        await ready(engine)
        async with asyncio.timeout(5):
            await lost(engine)
    os.kill(int(holder.read_text()), signal.SIGKILL)


async def test_a_worker_that_ends_by_itself_is_replaced(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=answering(after="sys.exit(0)"))
    async with serving(engine):
        assert (await answer(engine, job("x"))).text == "x"
        await lost(engine)
        assert engine.health.detail == "the inference process died (exit code 0)"
        assert (await answer(engine, job("x"))).text == "x"


async def test_what_a_worker_says_of_unknown_jobs_and_says_twice_is_passed_over(tmp_path: Path) -> None:
    unknown = "say(Started(77, 9, 0, 9)); answer(77); say(Canceled(77))"
    engine = new_engine(tmp_path, command=answering(before=unknown, after="say(Done(message.job, 'stop', 1, 1, 0))"))
    async with serving(engine):
        said = [await answer(engine, job("x")) for _ in range(3)]
        assert [(each.text, each.texts) for each in said] == [("x", 1)] * 3
        assert (engine._jobs, engine._watchdog.owes, engine.health.state) == ({}, 0, "ready")


async def test_of_a_flood_on_the_error_output_the_end_of_each_read_alone_is_logged(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, command=answering(before="[os.write(2, b'a\\n' * 32768) for _ in range(4)]"))
    with capture_logs() as logged:
        async with serving(engine):
            assert (await answer(engine, job("x"))).text == "x"

    assert 0 < len([entry for entry in logged if entry["event"] == "worker.printed"]) < 2000


async def test_fifty_deaths_leave_nothing_behind(tmp_path: Path) -> None:
    # A shell, since fifty starts of Python take seven seconds.
    said = [wire.encode(message).decode() for message in (wire.Ready(100, "cpu", 0.0), wire.Started(1, 1, 0))]
    script = "printf %s '{}'; read -r job; printf %s '{}'; exit 1".format(*said)
    engine = new_engine(tmp_path, command=["/bin/sh", "-c", script])
    async with serving(engine):
        await ready(engine)
        opened, tasks = descriptors(), len(asyncio.all_tasks())
        for _ in range(50):
            with pytest.raises(EngineLost):
                await answer(engine, job("x"))
        await ready(engine)

        assert (descriptors(), len(asyncio.all_tasks()), engine._jobs) == (opened, tasks, {})
