"""A worker whose memory grows is replaced between jobs."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.engines.growth import Growth, default_allowance
from tests.engines.conftest import new_engine
from tests.engines.running import answer, job, ready, serving
from tests.engines.workers import worker

MIB = 1 << 20
# It keeps 16 MiB of each job, and writes down which jobs it ran.
_LEAKING = """
kept = []
for message in told():
    if isinstance(message, Submit):
        kept.append(bytes([1]) * (16 << 20))
        print(message.conversation.decode(), file=open({ran!r}, "a"))
        answer(message.job)
"""


def test_a_worker_that_grew_by_more_than_it_may_is_replaced() -> None:
    growth = Growth(100 * MIB, 300 * MIB, load_s=1.0, now=0.0)
    assert [growth.exceeds(size * MIB, 0, 60.0) for size in (400, 401)] == [False, True]


def test_caches_are_no_growth() -> None:
    growth = Growth(100 * MIB, 300 * MIB, load_s=1.0, now=0.0)
    assert [growth.exceeds(size * MIB, 500 * MIB, 60.0) for size in (900, 901)] == [False, True]


def test_a_worker_lives_ten_times_as_long_as_its_load_took_however_fast_it_grows() -> None:
    growth = Growth(100 * MIB, 300 * MIB, load_s=6.0, now=0.0)
    assert [growth.exceeds(1000 * MIB, 0, now) for now in (59.0, 60.0)] == [False, True]


def test_a_worker_may_gain_a_quarter_of_the_box(tmp_path: Path) -> None:
    (total,) = (line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    assert default_allowance(tmp_path) == int(total) * 1024 // 4


@pytest.mark.parametrize(
    "limits",
    [
        {"system.slice/edge-slm.service": "209715200\n"},  # systemd's MemoryMax
        {"system.slice": "209715200\n", "system.slice/edge-slm.service": "max\n"},
        {"": "209715200\n"},  # a container, which sees its own group as the top
        {"system.slice": "314572800\n", "system.slice/edge-slm.service": "209715200\n"},
    ],
)
def test_a_worker_may_gain_a_quarter_of_what_the_least_of_its_cgroups_may_have(
    tmp_path: Path, limits: dict[str, str]
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/old\n0::/system.slice/edge-slm.service\n")
    for group, limit in limits.items():
        folder = tmp_path / "sys/fs/cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(limit)
    assert default_allowance(tmp_path) == 50 * MIB


async def test_a_leaking_worker_is_replaced_between_jobs_and_each_job_runs_once(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    engine = new_engine(tmp_path, command=worker(_LEAKING.format(ran=str(ran))), leak_bytes=60 * MIB)
    at_once = asyncio.Semaphore(2)

    async def ask(number: int) -> str:
        async with at_once:
            return (await answer(engine, job(f"job {number}"))).text

    with capture_logs() as logged:
        async with serving(engine):
            answers = await asyncio.gather(*map(ask, range(20)))

    assert answers == ["x"] * 20
    assert [*Counter(ran.read_text().splitlines()).values()] == [1] * 20
    replaced = [entry["grown_bytes"] for entry in logged if entry["event"] == "engine.worker_outgrown"]
    assert len(replaced) >= 3
    # One more job than the mark allows is there to find it, and one that ran beside it.
    assert all(60 * MIB < grown < 100 * MIB for grown in replaced)


async def test_a_cache_that_is_given_back_as_its_job_ends_hides_no_leak(tmp_path: Path) -> None:
    # As with a vision model: each job's cache goes with it, and 80 MiB are lost.
    body = """
for message in told():
    if isinstance(message, Submit):
        say(Started(message.job, 1, 0))
        cache = bytes([1]) * (200 << 20)
        leaked = bytes([1]) * (80 << 20)
        cache = None
        say(Done(message.job, "stop", 1, 1, 0, held=0))
"""
    engine = new_engine(tmp_path, command=worker(body), leak_bytes=60 * MIB)
    with capture_logs() as logged:
        async with serving(engine):
            await answer(engine, job("x"))
            await ready(engine)

    assert "engine.worker_outgrown" in {entry["event"] for entry in logged}


async def test_while_a_worker_that_has_grown_ends_its_jobs_the_engine_says_so_and_starts_none_on_it(
    tmp_path: Path,
) -> None:
    # Its first job lasts until the second has ended, by which it grows.
    body = """
for message in told():
    if isinstance(message, Submit):
        say(Started(message.job, 1, 0))
        if message.job == 2:
            kept = bytes([1]) * (80 << 20)
            answer(2)
        elif message.job > 2:
            answer(message.job)
    elif isinstance(message, Cancel):
        say(Canceled(message.job))
"""
    engine = new_engine(tmp_path, command=worker(body), leak_bytes=60 * MIB)
    async with serving(engine):
        await ready(engine)
        first = asyncio.create_task(answer(engine, job("first")))
        await asyncio.sleep(0)
        await answer(engine, job("second"))
        assert engine._child
        grown, health = engine._child.pid, engine.health
        assert (health.state, health.detail) == (
            "loading",
            "the inference process has grown by 80 MiB and is replaced: jobs wait for it",
        )
        third = asyncio.create_task(answer(engine, job("third")))
        await asyncio.sleep(0.1)  # long enough for an answer, were it run
        assert not third.done()
        first.cancel()
        assert (await third).text == "x"
        assert engine._child.pid != grown


async def test_a_worker_whose_memory_has_shrunk_again_stays(tmp_path: Path) -> None:
    # The first job lasts until the third; by the second's end much is taken, by the first's it is given back.
    body = """
for message in told():
    if isinstance(message, Submit):
        say(Started(message.job, 1, 0))
        if message.job == 2:
            kept = bytes([1]) * (80 << 20)
            answer(2)
    elif isinstance(message, Cancel):
        kept = None
        say(Canceled(message.job))
"""
    engine = new_engine(tmp_path, command=worker(body), leak_bytes=60 * MIB)
    async with serving(engine):
        await ready(engine)
        first = asyncio.create_task(answer(engine, job("first")))
        await asyncio.sleep(0)
        await answer(engine, job("second"))
        assert engine._child
        pid = engine._child.pid
        first.cancel()
        await ready(engine)
        assert engine._child.pid == pid
