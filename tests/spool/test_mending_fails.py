"""A damaged file that the disk does not let be mended, or not at once."""

import errno
import math
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import EventDict

from agent.spool import Spool, SpoolSick
from agent.spool.mending import _reader, mend
from tests.filesystems import full, small_disk
from tests.spool.damaging import PAGE, kept_aside, overwritten, root_of
from tests.spool.samples import final, job, unsent

pytestmark = pytest.mark.usefixtures("logged")


async def test_while_it_cannot_be_mended_it_is_a_sentence_and_tried_again_later(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = root_of(damaged, "finals_by_age")
    spool = await Spool.open(damaged)
    overwritten(damaged, index, os.urandom(PAGE))
    with monkeypatch.context() as sick:
        sick.setattr("agent.spool.store.mend", broken_disk)
        with pytest.raises(
            SpoolSick, match=r"is damaged .* and cannot be mended now \(no space\): free some on its disk"
        ):
            await spool.finish(final("a"))
    with pytest.raises(SpoolSick, match="will be mended"):
        await spool.finish(final("a"))
    monkeypatch.setattr("agent.spool.store.time.monotonic", lambda: math.inf)
    assert await spool.finish(final("a")) is True
    await spool.close()


def broken_disk(*_: object) -> None:
    raise OSError("no space")


async def test_a_damaged_file_is_mended_on_a_full_disk_with_the_ballasts_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 32 << 20) as disk:
        path = disk / "spool.db"
        spool = await Spool.open(path)
        await spool.accept(job("a"), 1.0)
        await spool.close()
        overwritten(path, root_of(path, "sqlite_autoindex_requests_1"), os.urandom(PAGE))
        with full(disk):
            spool = await Spool.open(path)
            assert [each.key.id for each in await spool.recover()] == ["a"]
            assert await spool.finish(final("a")) is True
            await spool.close()


async def large_and_damaged(disk: Path) -> Path:
    path = disk / "spool.db"
    spool = await Spool.open(path)
    for n in range(20):
        await spool.finish(final(f"f{n}", os.urandom(1_000_000)))
    await spool.close()
    overwritten(path, root_of(path, "finals_by_age"), os.urandom(PAGE))
    return path


async def test_a_mending_that_finds_no_room_takes_none(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 << 20) as disk:
        path = await large_and_damaged(disk)
        with full(disk):
            spool = await Spool.open(path)
            with pytest.raises(SpoolSick, match="cannot be mended now"):
                await spool.finish(final("z"))
            await spool.close()
            assert not path.with_name("spool.db.mending").exists()
        spool = await Spool.open(path)
        assert await spool.finish(final("z")) is True
        assert spool.unsent == 21
        await spool.close()


async def test_what_was_set_aside_before_makes_room_for_a_mending(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 << 20) as disk:
        path = await large_and_damaged(disk)
        for year in (2021, 2022, 2023):
            path.with_name(f"spool.db.damaged-{year}0101T000000").write_bytes(bytes(8 << 20))
        with full(disk):
            spool = await Spool.open(path)
            assert await spool.finish(final("z")) is True
            assert spool.unsent == 21
            await spool.close()


async def test_a_file_system_that_is_full_gets_of_the_ballast(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError(errno.ENOSPC, "no space"), OSError(errno.EDQUOT, "no quota")]

    def crammed(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        mend(*arguments)

    monkeypatch.setattr("agent.spool.store.mend", crammed)
    overwritten(damaged, 0, os.urandom(PAGE))
    await (await Spool.open(damaged)).close()
    assert failures == []
    assert kept_aside(damaged) != []


class FailingReader:
    """A connection whose every read of the requests fails, at ``failures`` of them."""

    def __init__(self, path: Path, failures: list[Exception]) -> None:
        self._connection = _reader(path)
        self._failures = failures
        self.close = self._connection.close

    def execute(self, query: str, *values: Any) -> Iterator[Any]:
        if "FROM requests" in query and self._failures:
            raise self._failures.pop()
        return self._connection.execute(query, *values)


def fail_to_read(monkeypatch: pytest.MonkeyPatch, failures: list[Exception]) -> None:
    monkeypatch.setattr("agent.spool.store._READ_AGAIN_S", 0.0)
    monkeypatch.setattr("agent.spool.mending._reader", lambda path: FailingReader(path, failures))


def io_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    return error


async def test_a_read_that_fails_once_while_it_is_mended_costs_nothing(
    damaged: Path, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    fail_to_read(monkeypatch, [io_error()])
    overwritten(damaged, root_of(damaged, "sqlite_autoindex_requests_1"), os.urandom(PAGE))
    spool = await Spool.open(damaged)
    assert [each.key.id for each in await spool.recover()] == ["a", "b"]
    assert [each["event"] for each in logged] == ["spool.unreadable", "spool.damaged", "spool.mended"]
    await spool.close()


async def test_what_cannot_be_read_the_second_time_either_is_given_up_and_the_rest_kept(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_read(monkeypatch, [io_error() for _ in range(30_000)])
    overwritten(damaged, root_of(damaged, "sqlite_autoindex_requests_1"), os.urandom(PAGE))
    spool = await Spool.open(damaged)
    assert await spool.recover() == []
    assert await unsent(spool) == [("unsent", b"2")]
    await spool.close()


async def test_a_lack_of_memory_while_it_is_mended_is_a_sentence_and_costs_nothing(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwritten(damaged, root_of(damaged, "sqlite_autoindex_requests_1"), os.urandom(PAGE))
    with monkeypatch.context() as sick:
        fail_to_read(sick, [MemoryError()])
        with pytest.raises(SpoolSick, match="no memory is left"):
            await Spool.open(damaged)
    spool = await Spool.open(damaged)
    assert [each.key.id for each in await spool.recover()] == ["a", "b"]
    await spool.close()
