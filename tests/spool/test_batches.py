"""The writer thread: group commit, cancelled callers, and a disk that refuses."""

import asyncio
import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.spool import Receipt, Spool, SpoolError
from agent.spool.database import Database
from tests.spool.samples import final, held, job, traced, unsent

FRAME = "x" * 500_000


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let every write beyond ``size`` bytes fail, as a full disk does: in the WAL, at the commit."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def fill_up(spool: Spool, pages: int) -> None:
    def limit(database: Database) -> None:
        used = database._number("PRAGMA page_count")
        database._execute(f"PRAGMA max_page_count = {used + pages}")

    await spool._do(limit)


async def test_callers_at_the_same_time_share_one_commit(spool: Spool) -> None:
    statements = await traced(spool)
    async with held(spool):
        statements.clear()
        asking = [asyncio.create_task(spool.accept(job(f"j{n}"), 1.0)) for n in range(100)]
        await asyncio.sleep(0)
    assert set(await asyncio.gather(*asking)) == {Receipt.NEW}
    # One is the holder's own.
    assert statements.count("COMMIT") == 2


async def test_striking_off_what_was_sent_waits_for_no_fsync(spool: Spool) -> None:
    await spool.finish(final("a"))
    statements = await traced(spool)
    await spool.sent([1])
    await spool.finish(final("b"))
    assert [each for each in statements if "synchronous" in each] == [
        "PRAGMA synchronous = NORMAL",
        "PRAGMA synchronous = FULL",
    ]


async def test_a_cancelled_callers_operation_happens_all_the_same(spool: Spool) -> None:
    async with held(spool):
        asking = asyncio.create_task(spool.accept(job("a"), 1.0))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert await spool.accept(job("a"), 2.0) is Receipt.RUNNING
    assert spool.unfinished == 1


async def test_a_cancelled_caller_takes_no_answer_from_its_batch(spool: Spool) -> None:
    async with held(spool):
        cancelled = asyncio.create_task(spool.accept(job("a"), 1.0))
        neighbour = asyncio.create_task(spool.accept(job("b"), 1.0))
        await asyncio.sleep(0)
        cancelled.cancel()
    assert await neighbour is Receipt.NEW


async def test_a_full_disk_is_a_sentence_and_changes_nothing(spool: Spool) -> None:
    await fill_up(spool, 10)
    with pytest.raises(SpoolError, match=r"no space left for .*spool\.db: free some on its disk"):
        await spool.accept(job("frame", FRAME), 1.0)
    assert spool.unfinished == 0
    assert await spool.recover() == []


async def test_on_a_full_disk_only_those_fail_who_do_not_fit(spool: Spool) -> None:
    await fill_up(spool, 10)
    async with held(spool):
        frame = asyncio.create_task(spool.accept(job("frame", FRAME), 1.0))
        small = asyncio.create_task(spool.finish(final("small")))
        await asyncio.sleep(0)
    with pytest.raises(SpoolError):
        await frame
    assert await small is True
    assert (spool.unfinished, spool.unsent) == (0, 1)


async def test_a_commit_that_fails_fails_only_those_who_do_not_fit(spool: Spool, path: Path) -> None:
    await spool.accept(job("before"), 1.0)
    room = path.with_name(path.name + "-wal").stat().st_size + 100_000
    with files_no_larger_than(room):
        async with held(spool):
            frame = asyncio.create_task(spool.accept(job("frame", FRAME), 1.0))
            small = asyncio.create_task(spool.finish(final("before")))
            await asyncio.sleep(0)
        with pytest.raises(SpoolError, match="check its space, quota and health"):
            await frame
        assert await small is True
    assert (spool.unfinished, spool.unsent) == (0, 1)


async def test_after_a_disk_error_the_spool_serves_on(spool: Spool, path: Path) -> None:
    with files_no_larger_than(path.with_name(path.name + "-wal").stat().st_size), pytest.raises(SpoolError):
        await spool.accept(job("a"), 1.0)
    assert await spool.accept(job("a"), 1.0) is Receipt.NEW
    await spool.finish(final("a", b"answer"))
    assert await unsent(spool) == [("a", b"answer")]


async def test_a_disk_that_became_read_only_is_a_sentence(spool: Spool) -> None:
    await spool._do(lambda database: database._execute("PRAGMA query_only = 1"), durable=False)
    with pytest.raises(SpoolError, match=r"the disk under .*spool\.db became read-only"):
        await spool.accept(job("a"), 1.0)


async def test_an_operation_that_breaks_harms_nobody_else(spool: Spool) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    async with held(spool):
        breaking = asyncio.create_task(spool._do(broken))
        asking = asyncio.create_task(spool.accept(job("a"), 1.0))
        await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError):
        await breaking
    assert await asking is Receipt.NEW
