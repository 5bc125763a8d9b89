"""What is true of a spool from one open to the next."""

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from agent.spool import Receipt, Spool, SpoolError
from tests.spool.samples import final, held, job, key, unsent


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


def edited(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)


async def reopened(spool: Spool, path: Path) -> Spool:
    await spool.close()
    return await Spool.open(path)


async def test_the_folder_and_the_file_are_for_the_agent_alone(spool: Spool, path: Path) -> None:
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    assert spool.unfinished == 0


async def test_unfinished_requests_come_back_in_the_order_of_acceptance(path: Path) -> None:
    spool = await Spool.open(path)
    for job_id in ("c", "a", "b"):
        await spool.accept(job(job_id), 1.0)
    spool = await reopened(spool, path)
    assert [each.key.id for each in await spool.recover()] == ["c", "a", "b"]
    await spool.close()


async def test_each_start_that_a_request_lives_through_is_one_more_attempt(path: Path) -> None:
    spool = await Spool.open(path)
    await spool.accept(job("a"), 1.0)
    attempts = []
    for _ in range(3):
        spool = await reopened(spool, path)
        attempts += [each.attempt for each in await spool.recover()]
    assert attempts == [2, 3, 4]
    await spool.close()


async def test_an_attempt_within_one_run_is_not_counted_again_by_the_next(path: Path) -> None:
    spool = await Spool.open(path)
    await spool.accept(job("a"), 1.0)
    await spool.restarted(key("a"), 3)
    spool = await reopened(spool, path)
    assert [each.attempt for each in await spool.recover()] == [4]
    await spool.close()


async def test_a_cancel_survives(path: Path) -> None:
    spool = await Spool.open(path)
    await spool.accept(job("a"), 1.0)
    await spool.accept(job("b"), 1.0)
    assert await spool.cancel(key("a")) is Receipt.RUNNING
    spool = await reopened(spool, path)
    assert [(each.key.id, each.canceled) for each in await spool.recover()] == [("a", True), ("b", False)]
    await spool.close()


async def test_counts_and_the_outbox_survive(path: Path) -> None:
    spool = await Spool.open(path)
    await spool.accept(job("a"), 1.0)
    await spool.finish(final("b", b"answer"))
    spool = await reopened(spool, path)
    assert (spool.unfinished, spool.unsent) == (1, 1)
    assert await unsent(spool) == [("b", b"answer")]
    await spool.close()


async def test_a_job_that_cannot_be_read_comes_back_without_its_job(path: Path) -> None:
    spool = await Spool.open(path)
    await spool.accept(job("a"), 1.0)
    await spool.close()
    edited(path, """UPDATE requests SET job = CAST('{"v": 9}' AS BLOB)""")
    spool = await Spool.open(path)
    (only,) = await spool.recover()
    assert (only.key, only.job) == (key("a"), None)
    assert await spool.finish(final("a")) is True
    await spool.close()


async def test_close_commits_what_was_asked_for_before(path: Path) -> None:
    spool = await Spool.open(path)
    async with held(spool):
        asking = [asyncio.create_task(spool.accept(job(f"j{n}"), 1.0)) for n in range(500)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(spool.close())
        await asyncio.sleep(0)
    await closing
    assert set(await asyncio.gather(*asking)) == {Receipt.NEW}
    spool = await Spool.open(path)
    assert spool.unfinished == 500
    await spool.close()


async def test_close_twice_is_once(spool: Spool) -> None:
    await asyncio.gather(spool.close(), spool.close())
    await spool.close()


async def test_a_closed_spool_says_so(spool: Spool) -> None:
    await spool.close()
    with pytest.raises(SpoolError, match="is closed"):
        await spool.accept(job("a"), 1.0)


async def test_a_caller_cancelled_while_it_opens_leaves_nothing_held(path: Path) -> None:
    opening = asyncio.create_task(Spool.open(path))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    while True:
        try:
            spool = await Spool.open(path)
        except SpoolError:
            continue  # its thread is on its way out
        break
    await spool.close()


async def test_a_second_agent_is_refused_and_told_who_holds_the_spool(spool: Spool, path: Path) -> None:
    with pytest.raises(SpoolError, match=rf"another edge-slm holds .*spool\.db \(pid {os.getpid()}\)"):
        await Spool.open(path)
    assert await spool.accept(job("a"), 1.0) is Receipt.NEW


async def test_a_folder_in_the_files_place_is_named(path: Path) -> None:
    written(path / "inside", b"")
    with pytest.raises(SpoolError, match=r"cannot open .*spool\.db .*: check what it is and who owns it"):
        await Spool.open(path)


async def test_another_program_that_has_it_open_is_a_sentence(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spool.close()
    monkeypatch.setattr("agent.spool.database._BUSY_S", 0.0)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolError, match=r"another program has locked .*: close it"):
            await Spool.open(path)


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    written(tmp_path / "state", b"a file where the folder should be")
    with pytest.raises(SpoolError, match=r"cannot write in .*state .*: make it writable, or set another state_dir"):
        await Spool.open(tmp_path / "state" / "spool.db")
