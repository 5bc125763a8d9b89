"""How much the spool may hold, and what goes when it is too much."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.spool import Receipt, Room, Spool, SpoolFull
from tests.spool.samples import final, held, job, key

BYTES = 1 << 20


@pytest.fixture
async def small(path: Path) -> AsyncIterator[Spool]:
    opened = await Spool.open(path, Room(jobs=1000, bytes=BYTES))
    yield opened
    await opened.close()


async def live_bytes(spool: Spool) -> int:
    return await spool._do(lambda database: database.live_bytes)


async def send_all(spool: Spool) -> None:
    await spool.sent([row.seq for row in await spool.outgoing(0, 10_000)])


async def sent_finals(spool: Spool, prefix: str, count: int, size: int = 4000) -> None:
    for first in range(0, count, 50):
        await asyncio.gather(*(spool.finish(final(f"{prefix}{first + n}", b"x" * size)) for n in range(50)))
        await send_all(spool)


async def test_requests_and_unsent_finals_are_bounded_together(path: Path) -> None:
    spool = await Spool.open(path, Room(jobs=2))
    await spool.accept(job("a"), 1.0)
    await spool.finish(final("b"))
    with pytest.raises(SpoolFull, match="1 jobs are under way, and 1 answers wait for the broker: try again later"):
        await spool.accept(job("c"), 1.0)
    await send_all(spool)
    assert await spool.accept(job("c"), 1.0) is Receipt.NEW
    await spool.close()


async def test_refusals_do_not_grow_beyond_the_bound(path: Path) -> None:
    spool = await Spool.open(path, Room(jobs=1))
    await spool.accept(job("a"), 1.0)
    with pytest.raises(SpoolFull):
        await spool.refuse(final("b"))
    assert spool.unsent == 0
    await spool.close()


async def test_repeats_are_known_in_a_full_spool(path: Path) -> None:
    spool = await Spool.open(path, Room(jobs=2))
    await spool.accept(job("a"), 1.0)
    await spool.finish(final("b"))
    assert await spool.accept(job("a"), 1.0) is Receipt.RUNNING
    assert await spool.accept(job("b"), 1.0) is Receipt.FINISHED
    assert await spool.refuse(final("a")) is Receipt.RUNNING
    await spool.close()


async def test_a_job_of_a_full_spool_ends(path: Path) -> None:
    spool = await Spool.open(path, Room(jobs=1))
    await spool.accept(job("a"), 1.0)
    assert await spool.finish(final("a")) is True
    await spool.close()


async def test_one_without_room_does_not_undo_its_neighbours_in_the_same_commit(path: Path) -> None:
    spool = await Spool.open(path, Room(jobs=1))
    statements: list[str] = []
    await spool._do(lambda database: database._connection.set_trace_callback(statements.append))
    async with held(spool):
        asking = [spool._loop.create_task(spool.accept(job(f"j{n}"), 1.0)) for n in range(3)]
    await asyncio.wait(asking)
    assert [type(each.exception()) for each in asking] == [type(None), SpoolFull, SpoolFull]
    assert "ROLLBACK" not in statements
    await spool.close()


async def test_the_oldest_sent_finals_go_before_a_request_is_refused(small: Spool) -> None:
    await sent_finals(small, "old", 200)
    await sent_finals(small, "new", 200)
    assert await small.accept(job("a"), 1.0) is Receipt.NEW
    assert await live_bytes(small) < BYTES
    assert await small.known(key("old0")) is Receipt.NEW
    assert await small.known(key("new199")) is Receipt.FINISHED


async def test_that_finals_go_early_is_said_once(small: Spool) -> None:
    with capture_logs() as logged:
        await sent_finals(small, "f", 2000, size=700)
    assert [each["event"] for each in logged] == ["spool.crowded"]


async def test_finals_that_the_broker_does_not_have_stay_and_requests_are_refused(small: Spool) -> None:
    await asyncio.gather(*(small.finish(final(f"f{n}", b"x" * 4000)) for n in range(300)))
    with pytest.raises(SpoolFull, match=f"fills {BYTES} bytes: try again later"):
        await small.accept(job("a"), 1.0)
    assert small.unsent == 300


async def test_nobody_looks_again_for_finals_to_drop_until_one_is_sent(small: Spool) -> None:
    await asyncio.gather(*(small.finish(final(f"f{n}", b"x" * 4000)) for n in range(300)))
    await small.known(key("f0"))
    statements: list[str] = []
    await small._do(lambda database: database._connection.set_trace_callback(statements.append))
    for n in range(3):
        with pytest.raises(SpoolFull):
            await small.accept(job(f"j{n}"), 1.0)
    assert [each for each in statements if each.startswith("DELETE")] == []


async def test_a_crowded_spool_is_read_on_a_disk_that_takes_no_writes(small: Spool) -> None:
    await asyncio.gather(*(small.finish(final(f"f{n}", b"x" * 4000)) for n in range(900)))
    await small.sent([row.seq for row in await small.outgoing(0, 890)])
    await small._do(lambda database: database._execute("PRAGMA query_only = ON"), durable=False)
    assert await small.known(key("f899")) is Receipt.FINISHED
    assert len(await small.outgoing(0, 100)) == 10


async def test_once_they_are_sent_there_is_room_again(small: Spool) -> None:
    await asyncio.gather(*(small.finish(final(f"f{n}", b"x" * 4000)) for n in range(300)))
    await send_all(small)
    await small.known(key("f0"))
    assert await small.accept(job("a"), 1.0) is Receipt.NEW


async def test_the_bytes_hold_however_many_refusals_come(small: Spool) -> None:
    for n in range(600):
        await small.refuse(final(f"r{n}", b"x" * 2000))
        if n % 10 == 0:
            await send_all(small)
    assert await live_bytes(small) < BYTES
