"""A file that was damaged, cut or exchanged: what can be read of it is carried over, and the spool goes on."""

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.typing import EventDict

from agent.durable import synced
from agent.spool import Receipt, Spool, SpoolError
from agent.spool.mending import mend
from tests.spool.damaging import PAGE, content, edited, kept_aside, overwritten, root_of, rows, written
from tests.spool.samples import final, job, key, unsent

_SPENDING = "SELECT period, payer, requests, tokens, money FROM spending"
_FINALS = "SELECT client, id, topic, correlation, payload, repeatable FROM finals NOT INDEXED"
_REQUESTS = "SELECT client, id, attempt, canceled, job, egress FROM requests NOT INDEXED"


@dataclass
class Filled:
    """A spool of a few hundred pages, some of them in the WAL alone, and what is in it."""

    database: bytes
    wal: bytes
    finals: set[tuple[object, ...]]
    requests: set[tuple[object, ...]]
    spending: set[tuple[object, ...]]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    path = tmp_path_factory.mktemp("filled") / "spool.db"

    async def fill() -> tuple[bytes, bytes]:
        spool = await Spool.open(path)
        for n in range(300):
            await spool.accept(job(f"j{n}", "x" * random.Random(n).randrange(9000)), float(n))
            if n % 3 == 0:
                await spool.leaving(key(f"j{n}"), [("2026-11", f"camera{n}", n, n, 0.0)])
            if n % 2:
                await spool.finish(final(f"j{n}", b"y" * random.Random(n).randrange(9000)))
        await spool.sent([row.seq for row in await spool.outgoing(0, 100)])
        files = path.read_bytes(), path.with_name("spool.db-wal").read_bytes()
        await spool.close()
        return files

    return Filled(*asyncio.run(fill()), *(set(rows(path, query)) for query in (_FINALS, _REQUESTS, _SPENDING)))


pytestmark = pytest.mark.usefixtures("logged")

Damage = Callable[[random.Random, bytearray], None]


def cut(chance: random.Random, data: bytearray) -> None:
    del data[chance.randrange(len(data)) :]


def scribble(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 5, 50))):
        at = chance.randrange(len(data))
        data[at : at + 64] = chance.randbytes(min(64, len(data) - at))


def lose_pages(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 5, 20))):
        at = chance.randrange(len(data) // PAGE) * PAGE
        data[at : at + PAGE] = chance.choice((bytes(PAGE), chance.randbytes(PAGE)))


def confuse_pages(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 5))):
        to, source = (chance.randrange(len(data) // PAGE) * PAGE for _ in range(2))
        data[to : to + PAGE] = data[source : source + PAGE]


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), how=st.sampled_from((cut, scribble, lose_pages, confuse_pages)), wal=st.booleans())
def test_all_that_a_plain_read_gets_is_carried_over(
    filled: Filled, tmp_path_factory: pytest.TempPathFactory, seed: int, how: Damage, *, wal: bool
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "spool.db"
    path.write_bytes(filled.database)
    path.with_name("spool.db-wal").write_bytes(filled.wal)
    target = path.with_name("spool.db-wal") if wal else path
    data = bytearray(target.read_bytes())
    how(random.Random(seed), data)
    target.write_bytes(data)
    shutil.copytree(path.parent, path.parent / "read")
    # A row that was damaged itself is no longer what somebody was promised.
    finals = set(rows(path.parent / "read" / "spool.db", _FINALS)) & filled.finals
    requests = set(rows(path.parent / "read" / "spool.db", _REQUESTS)) & filled.requests
    spending = set(rows(path.parent / "read" / "spool.db", _SPENDING)) & filled.spending

    mend(path, "it was damaged", 1)

    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    new_finals, new_requests = set(rows(path, _FINALS)), set(rows(path, _REQUESTS))
    ended = {each[:2] for each in new_finals}
    assert finals <= new_finals
    assert {each for each in requests if each[:2] not in ended} <= new_requests
    assert not {each[:2] for each in new_requests} & ended
    assert spending <= set(rows(path, _SPENDING))
    assert list(rows(path, "SELECT * FROM outbox WHERE final NOT IN (SELECT seq FROM finals)")) == []
    shutil.rmtree(path.parent)


async def long_table(path: Path) -> None:
    """Make a spool of 300 requests, a few of them on a page."""
    spool = await Spool.open(path)
    await asyncio.gather(*(spool.accept(job(f"j{n}", "x" * 500), 1.0) for n in range(300)))
    await spool.close()


def lose_page_of(path: Path, job_id: str) -> None:
    at = content(path).index(f'"id":"{job_id}"'.encode())
    overwritten(path, at - at % PAGE, bytes(PAGE))


def requests_in(path: Path) -> set[object]:
    return {job_id for (job_id,) in rows(path, "SELECT id FROM requests")}


async def test_rows_between_two_damaged_pages_are_found(path: Path) -> None:
    await long_table(path)
    lose_page_of(path, "j50")
    lose_page_of(path, "j250")
    mend(path, "it was damaged", 1)
    assert {b"j0", b"j150", b"j299"} <= requests_in(path)
    assert not {b"j50", b"j250"} & requests_in(path)


async def test_rows_between_two_damaged_pages_are_found_though_their_numbers_are_far_apart(path: Path) -> None:
    spool = await Spool.open(path)
    await asyncio.gather(*(spool.finish(final(f"j{n}", b"y" * 500)) for n in range(300)))
    await spool.close()
    # As on a box whose cameras' finals, which go once they are sent, had the numbers in between.
    edited(path, "UPDATE outbox SET final = final * 20000")
    edited(path, "UPDATE finals SET seq = seq * 20000")
    for n in (50, 250):
        at = content(path).index(f"res/porch/j{n}/final".encode())
        overwritten(path, at - at % PAGE, bytes(PAGE))
    mend(path, "it was damaged", 1)
    spool = await Spool.open(path)
    assert len(await unsent(spool)) >= 300 - 2 * PAGE // 500
    await spool.close()


async def test_rows_behind_a_wide_damage_are_found_from_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.spool.mending._GAP", 1)
    await long_table(path)
    lose_page_of(path, "j50")
    mend(path, "it was damaged", 1)
    assert {b"j0", b"j150", b"j299"} <= requests_in(path)


async def test_of_a_file_that_was_cut_all_before_the_cut_is_carried_over(path: Path) -> None:
    await long_table(path)
    os.truncate(path, content(path).index(b'"id":"j200"') // PAGE * PAGE)
    assert requests_in(path) == set()
    spool = await Spool.open(path)
    assert {each.key.id for each in await spool.recover()} >= {"j0", "j50", "j150"}
    await spool.close()


async def test_a_damaged_file_is_mended_when_it_is_opened(damaged: Path) -> None:
    overwritten(damaged, root_of(damaged, "sqlite_autoindex_requests_1"), os.urandom(PAGE))
    spool = await Spool.open(damaged)
    assert [(each.key.id, each.canceled) for each in await spool.recover()] == [("a", False), ("b", True)]
    assert await unsent(spool) == [("unsent", b"2")]
    assert await spool.accept(job("sent"), 3.0) is Receipt.FINISHED
    assert await spool.told() == {"porch": b"policy"}
    await spool.close()


async def test_a_file_damaged_while_it_is_open_is_mended_and_the_caller_does_not_notice(damaged: Path) -> None:
    index = root_of(damaged, "finals_by_age")
    spool = await Spool.open(damaged)
    overwritten(damaged, index, os.urandom(PAGE))
    assert await spool.finish(final("a", b"3")) is True
    assert await unsent(spool) == [("unsent", b"2"), ("a", b"3")]
    assert (spool.unfinished, spool.unsent) == (1, 2)
    await spool.close()


async def test_a_row_of_the_outbox_has_the_same_number_in_the_mended_file(damaged: Path) -> None:
    index = root_of(damaged, "finals_by_age")
    spool = await Spool.open(damaged)
    (before,) = await spool.outgoing(0, 10)
    overwritten(damaged, index, os.urandom(PAGE))
    await spool.finish(final("a"))
    assert [row.seq for row in await spool.outgoing(0, 10)] == [before.seq, before.seq + 1]
    await spool.close()


async def test_if_the_outbox_is_lost_every_final_goes_out_again_after_those_under_way(damaged: Path) -> None:
    pages = [root_of(damaged, name) for name in ("outbox", "finals_by_age")]
    spool = await Spool.open(damaged)
    (before,) = await spool.outgoing(0, 10)
    for page in pages:
        overwritten(damaged, page, os.urandom(PAGE))
    await spool.finish(final("a", b"3"))
    rows = await spool.outgoing(before.seq, 10)
    assert [(row.key.id, row.payload) for row in rows] == [("sent", b"1"), ("unsent", b"2"), ("a", b"3")]
    await spool.close()


async def test_a_request_that_has_its_final_is_not_carried_over(damaged: Path) -> None:
    edited(
        damaged,
        "INSERT INTO finals (client, id, finished_at, topic, payload, repeatable)"
        " VALUES ('porch', 'a', 1, 't', x'', 1)",
    )
    mend(damaged, "it was damaged", 1)
    spool = await Spool.open(damaged)
    assert [each.key.id for each in await spool.recover()] == ["b"]
    await spool.close()


async def test_of_a_file_that_is_no_database_nothing_can_be_read_and_the_spool_starts_anew(
    path: Path, logged: list[EventDict]
) -> None:
    written(path, b"not a database, whatever else it is" * 100)
    spool = await Spool.open(path)
    assert await spool.accept(job("a"), 1.0) is Receipt.NEW
    (aside,) = kept_aside(path)
    assert aside.read_bytes().startswith(b"not a database")
    assert [(each["event"], each["log_level"]) for each in logged] == [
        ("spool.damaged", "error"),
        ("spool.mended", "error"),
    ]
    assert (logged[0]["requests"], logged[0]["finals"], logged[1]["damaged_one"]) == (0, 0, str(aside))
    await spool.close()


async def test_what_a_newer_version_wrote_is_carried_over_and_its_file_kept(damaged: Path) -> None:
    edited(damaged, "ALTER TABLE requests ADD COLUMN mood TEXT")
    edited(damaged, "PRAGMA user_version = 99")
    spool = await Spool.open(damaged)
    assert (spool.unfinished, spool.unsent) == (2, 1)
    (aside,) = kept_aside(damaged)
    assert list(rows(aside, "PRAGMA user_version")) == [(99,)]
    await spool.close()


async def test_of_a_file_that_was_emptied_all_that_its_wal_holds_is_carried_over(
    path: Path, tmp_path: Path, logged: list[EventDict]
) -> None:
    spool = await Spool.open(path)
    await spool.accept(job("a"), 1.0)
    emptied = written(tmp_path / "emptied" / "spool.db", b"")
    written(emptied.with_name("spool.db-wal"), content(path.with_name("spool.db-wal")))
    await spool.close()
    spool = await Spool.open(emptied)
    assert [each.key.id for each in await spool.recover()] == ["a"]
    assert [each["event"] for each in logged] == ["spool.damaged", "spool.mended"]
    await spool.close()


async def test_another_programs_database_is_kept_as_it_is(path: Path) -> None:
    edited(written(path, b""), "CREATE TABLE photos (id)")
    await (await Spool.open(path)).close()
    (aside,) = kept_aside(path)
    assert list(rows(aside, "SELECT name FROM sqlite_schema")) == [(b"photos",)]


async def test_what_schema_2_wrote_is_read(path: Path) -> None:
    spool = await Spool.open(path)
    await spool.accept(job("a"), 1.0)
    await spool.close()
    for later in ("TABLE clock", "TABLE spending", "TABLE rates"):
        edited(path, f"DROP {later}")
    edited(path, "ALTER TABLE requests DROP COLUMN egress")
    edited(path, "PRAGMA user_version = 2")
    spool = await Spool.open(path)
    assert [(each.key.id, each.received_at) for each in await spool.recover()] == [("a", 1.0)]
    assert kept_aside(path) == []
    await spool.close()


async def test_only_the_three_latest_damaged_files_are_kept(damaged: Path) -> None:
    for year in (2021, 2022, 2023):
        for suffix in ("", "-wal"):
            damaged.with_name(f"{damaged.name}.damaged-{year}0101T000000{suffix}").touch()
    mend(damaged, "it was damaged", 1)
    assert [aside.name[17:21] for aside in kept_aside(damaged)] == ["2022", "2023", kept_aside(damaged)[-1].name[17:21]]
    assert not damaged.with_name(f"{damaged.name}.damaged-20210101T000000-wal").exists()


async def test_the_file_just_set_aside_is_kept_though_the_clock_is_behind(damaged: Path) -> None:
    for year in (2091, 2092, 2093):
        damaged.with_name(f"{damaged.name}.damaged-{year}0101T000000").touch()
    mend(damaged, "it was damaged", 1)
    latest, *others = (aside.name[17:21] for aside in kept_aside(damaged))
    assert latest < "2091"
    assert others == ["2092", "2093"]


async def test_nobody_else_gets_in_while_a_file_is_mended(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> None:
        entered.set()
        gate.wait(10)
        mend(*arguments)

    monkeypatch.setattr("agent.spool.store.mend", slowly)
    written(damaged, b"garbage" * 1000)
    opening = asyncio.create_task(Spool.open(damaged))
    await asyncio.to_thread(entered.wait, 10)
    with pytest.raises(SpoolError, match="another edge-slm holds"):
        await Spool.open(damaged)
    gate.set()
    await (await opening).close()


class PowerCutError(Exception):
    """Nothing after this happens."""


@pytest.mark.parametrize("step", range(1, 9))
async def test_a_power_cut_at_any_step_of_mending_loses_nothing(
    damaged: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    left = step

    def cut(actual: Callable[..., Any]) -> Callable[..., Any]:
        def maybe(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                raise PowerCutError
            return actual(*arguments)

        return maybe

    overwritten(damaged, root_of(damaged, "sqlite_autoindex_requests_1"), os.urandom(PAGE))
    with monkeypatch.context() as powered:
        powered.setattr(Path, "replace", cut(Path.replace))
        powered.setattr("agent.spool.mending.synced", cut(synced))
        with contextlib.suppress(PowerCutError):
            mend(damaged, "it was damaged", 1)
    spool = await Spool.open(damaged)
    assert [each.key.id for each in await spool.recover()] == ["a", "b"]
    assert await unsent(spool) == [("unsent", b"2")]
    await spool.close()
