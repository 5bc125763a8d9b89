"""A real disk without a byte left: what is new is refused, and what is under way comes to its end."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.spool import Receipt, Spool, SpoolError, SpoolSick
from agent.spool.ballast import FOR_JOBS, SIZE, Ballast
from tests.filesystems import fill, full, small_disk
from tests.spool.samples import final, job, key, unsent

DISK = 32 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", DISK) as mounted:
        yield mounted


@pytest.fixture
async def spool(disk: Path) -> AsyncIterator[Spool]:
    opened = await Spool.open(disk / "spool.db")
    yield opened
    await opened.close()


def ballast(disk: Path) -> int:
    return (disk / "spool.db.ballast").stat().st_size


async def use_up_the_wal(spool: Spool) -> None:
    """Accept until the disk refuses: the WAL has some room of its own."""
    with contextlib.suppress(SpoolSick):
        for n in itertools.count():
            await spool.accept(job(f"late{n}"), 1.0)


async def test_every_job_that_was_accepted_ends_on_a_full_disk(spool: Spool, disk: Path) -> None:
    answer = b"x" * 4000
    for n in range(70):
        await spool.accept(job(f"j{n}"), 1.0)
    with full(disk):
        await use_up_the_wal(spool)
        for n in range(70):
            assert await spool.finish(final(f"j{n}", answer)) is True
        rows = await spool.outgoing(0, 100)
        assert [(row.key, row.payload) for row in rows] == [(key(f"j{n}"), answer) for n in range(70)]
        for row in rows:
            await spool.sent([row.seq])
    assert spool.unsent == 0


async def test_expiry_goes_on_on_a_full_disk(spool: Spool, disk: Path) -> None:
    await spool.finish(final("old", finished_at=10))
    await spool.sent([row.seq for row in await spool.outgoing(0, 1)])
    with full(disk):
        await use_up_the_wal(spool)
        assert await spool.expire(20) == 1


async def test_nothing_new_eats_of_the_ballast(spool: Spool, disk: Path) -> None:
    with full(disk):
        await use_up_the_wal(spool)
        with pytest.raises(SpoolError, match="no space left"):
            await spool.tell("porch", b"x" * 100_000)
        assert ballast(disk) == SIZE


async def test_refusals_eat_of_the_ballast_and_leave_half_of_it_to_jobs(spool: Spool, disk: Path) -> None:
    with full(disk):
        await use_up_the_wal(spool)
        assert await spool.refuse(final("a", b"x" * 100_000)) is Receipt.NEW
        with contextlib.suppress(SpoolSick):
            for n in itertools.count():
                await spool.refuse(final(f"r{n}", b"x" * 100_000))
        assert ballast(disk) == FOR_JOBS


async def test_requests_are_refused_until_the_ballast_is_whole_again(spool: Spool, disk: Path) -> None:
    await spool.accept(job("a"), 1.0)
    with full(disk):
        await use_up_the_wal(spool)
        await spool.finish(final("a", b"x" * 100_000))
        assert ballast(disk) < SIZE
        with pytest.raises(SpoolSick, match=r"no space left beside .*spool\.db: free some on its disk"):
            await spool.accept(job("b"), 1.0)
    assert await spool.accept(job("b"), 1.0) is Receipt.NEW
    assert ballast(disk) == SIZE


async def test_a_neighbour_that_takes_all_that_is_given_back_does_not_stop_the_finals(spool: Spool, disk: Path) -> None:
    await spool.accept(job("a"), 1.0)
    await spool.accept(job("b"), 1.0)
    with full(disk):
        await use_up_the_wal(spool)
        for job_id in "ab":
            assert await spool.finish(final(job_id, b"x" * 300_000)) is True
            fill(disk)
    assert [job_id for job_id, _ in await unsent(spool)] == ["a", "b"]


async def test_it_opens_and_recovers_on_a_full_disk(disk: Path) -> None:
    spool = await Spool.open(disk / "spool.db")
    await spool.accept(job("a"), 1.0)
    await spool.close()
    with full(disk):
        spool = await Spool.open(disk / "spool.db")
        assert [(each.key, each.attempt) for each in await spool.recover()] == [(key("a"), 2)]
        assert await spool.finish(final("a")) is True
        await spool.close()


async def test_a_first_start_on_a_full_disk_is_the_disks_fault(disk: Path) -> None:
    with full(disk), pytest.raises(SpoolSick, match="free some"):
        await Spool.open(disk / "state" / "spool.db")
    await (await Spool.open(disk / "state" / "spool.db")).close()


async def test_a_start_on_a_disk_that_is_full_beyond_the_ballast_is_the_disks_fault(disk: Path) -> None:
    await (await Spool.open(disk / "spool.db")).close()
    (disk / "spool.db.ballast").unlink()
    with full(disk), pytest.raises(SpoolSick, match="free some") as sick:
        await Spool.open(disk / "spool.db")
    assert sick  # what failed is still referred to, as by a log
    await (await Spool.open(disk / "spool.db")).close()


async def test_a_ballast_that_an_earlier_run_has_given_away_is_made_again_at_the_start(disk: Path) -> None:
    await (await Spool.open(disk / "spool.db")).close()
    (disk / "spool.db.ballast").unlink()
    await (await Spool.open(disk / "spool.db")).close()
    assert ballast(disk) == SIZE


def test_a_ballast_is_not_made_of_the_last_room_there_is(disk: Path) -> None:
    (disk / "neighbour").write_bytes(bytes(DISK - 2 * SIZE + 4096))
    assert not Ballast(disk / "ballast").whole()
    assert not (disk / "ballast").exists()


def test_a_ballast_that_is_not_really_on_the_disk_is_none(disk: Path) -> None:
    with (disk / "ballast").open("wb") as file:
        file.truncate(SIZE)
    assert not Ballast(disk / "ballast").give(0)


def test_a_ballast_is_made_as_soon_as_there_is_room(disk: Path) -> None:
    kept = Ballast(disk / "ballast")
    with full(disk):
        assert not kept.whole()
    assert kept.whole()


def test_a_ballast_is_given_back_slice_by_slice(disk: Path) -> None:
    kept = Ballast(disk / "ballast")
    assert kept.whole()
    left = []
    while kept.give(0):
        left.append((disk / "ballast").stat().st_size >> 20)
    assert left == [7, 6, 5, 4, 3, 2, 1, 0]
