"""What the spool keeps for the cloud's sake: which jobs have left, what that cost, and how fast the models are."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.spool import Spool, SpoolSick, Total
from agent.spool.ballast import FOR_JOBS, SIZE
from agent.spool.mending import mend
from tests.filesystems import fill, full, small_disk
from tests.spool.damaging import PAGE, content, edited, kept_aside, overwritten, root_of, rows
from tests.spool.samples import final, held, job, key, traced, unsent

DAY: Total = ("2026-11-22", "", 3, 400, 0.25)
PORCH: Total = ("2026-11-22", "porch/cam", 1, 100, 0.125)
MONTH: Total = ("2026-11", "", 5, 900, 0.5)

# As edge-slm 0.1 made it, and what was in one.
SCHEMA_3 = """
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY, client TEXT NOT NULL, id TEXT NOT NULL, received_at REAL NOT NULL,
    attempt INTEGER NOT NULL, canceled INTEGER NOT NULL, job BLOB NOT NULL, UNIQUE (client, id));
CREATE TABLE finals (
    seq INTEGER PRIMARY KEY, client TEXT NOT NULL, id TEXT NOT NULL, finished_at REAL NOT NULL,
    topic TEXT NOT NULL, correlation BLOB, payload BLOB NOT NULL, repeatable INTEGER NOT NULL, UNIQUE (client, id));
CREATE INDEX finals_by_age ON finals (finished_at);
CREATE TABLE outbox (seq INTEGER PRIMARY KEY, final INTEGER NOT NULL UNIQUE REFERENCES finals);
CREATE TABLE cameras (name TEXT PRIMARY KEY, policy BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE clock (shift REAL NOT NULL); INSERT INTO clock VALUES (0);
INSERT INTO finals VALUES (1, 'porch', 'ended', 1000.0, 't', NULL, x'31', 1);
INSERT INTO outbox VALUES (1, 1);
INSERT INTO cameras VALUES ('porch', x'32');
PRAGMA user_version = 3;
"""


pytestmark = pytest.mark.usefixtures("logged")


@pytest.fixture
def older(path: Path) -> Path:
    """Make a spool of schema 3, with two requests, a final that waits, and a camera's policy."""
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(SCHEMA_3)
        for n, asked in enumerate((job("a"), job("b", "x" * 9000))):
            database.execute(
                "INSERT INTO requests VALUES (?, ?, ?, ?, 1, ?, ?)", (n + 7, *asked.key, 17.5, n, asked.dump())
            )
    return path


async def test_a_request_of_which_bytes_left_comes_back_with_that(path: Path) -> None:
    spool = await Spool.open(path)
    await spool.accept(job("a"), 1.0)
    await spool.accept(job("b"), 1.0)
    await spool.leaving(key("a"), [DAY, MONTH])
    await spool.close()
    spool = await Spool.open(path)
    assert [(each.key.id, each.egress) for each in await spool.recover()] == [("a", True), ("b", False)]
    assert await spool.spending() == [MONTH, DAY]
    await spool.close()


async def test_of_a_job_that_is_not_stored_only_the_totals_are_kept(spool: Spool) -> None:
    await spool.leaving(key("frame"), [DAY])
    assert await spool.spending() == [DAY]
    assert await spool.recover() == []


async def test_the_mark_and_the_totals_are_one_commit_with_one_fsync(spool: Spool) -> None:
    await spool.accept(job("a"), 1.0)
    statements = await traced(spool)
    await spool.spent([])
    statements.clear()
    await spool.leaving(key("a"), [DAY, PORCH, MONTH])
    assert [each for each in statements if "COMMIT" in each or "synchronous" in each] == [
        "PRAGMA synchronous = FULL",
        "COMMIT",
    ]


async def test_those_that_leave_at_the_same_time_share_it(spool: Spool) -> None:
    statements = await traced(spool)
    async with held(spool):
        statements.clear()
        leaving = [asyncio.create_task(spool.leaving(key(f"j{n}"), [DAY])) for n in range(20)]
        await asyncio.sleep(0)
    await asyncio.gather(*leaving)
    # One is the holder's own.
    assert statements.count("COMMIT") == 2


async def test_what_is_spent_and_what_was_measured_wait_for_no_fsync(spool: Spool) -> None:
    statements = await traced(spool)
    await spool.spent([DAY])
    await spool.keep_rates("text", b"1")
    assert [each for each in statements if "synchronous" in each] == ["PRAGMA synchronous = NORMAL"]


async def test_a_total_takes_the_place_of_its_payers_last_one(spool: Spool) -> None:
    await spool.spent([DAY, PORCH, MONTH])
    await spool.spent([("2026-11-22", "", 4, 500, 0.5)])
    assert await spool.spending() == [MONTH, ("2026-11-22", "", 4, 500, 0.5), PORCH]


@pytest.mark.parametrize("later", ["2026-11-23", "1970-01-01"])
async def test_the_totals_of_another_day_are_dropped_and_the_months_stay(spool: Spool, later: str) -> None:
    await spool.spent([DAY, PORCH, MONTH])
    await spool.leaving(key("a"), [(later, "", 1, 0, 0.0)])
    assert sorted(await spool.spending()) == sorted([MONTH, (later, "", 1, 0, 0.0)])


async def test_rates_survive_by_their_names(path: Path) -> None:
    spool = await Spool.open(path)
    await spool.keep_rates("text", b"old")
    await spool.keep_rates("text", b"new")
    await spool.keep_rates("cloud", b"\x00")
    await spool.close()
    spool = await Spool.open(path)
    assert await spool.rates() == {"cloud": b"\x00", "text": b"new"}
    await spool.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 32 << 20) as mounted:
        yield mounted


async def test_on_a_full_disk_notes_leave_half_of_the_ballast_to_finals(disk: Path) -> None:
    spool = await Spool.open(disk / "spool.db")
    await spool.accept(job("a"), 1.0)
    ballast = disk / "spool.db.ballast"
    with full(disk):
        for n in range(4000):
            try:
                await spool.spent([("2026-11", f"{n}" * 1000, 1, 0, 0.0)])
            except SpoolSick:
                break
            fill(disk)
        assert ballast.stat().st_size == FOR_JOBS
        with pytest.raises(SpoolSick, match="no space left"):
            await spool.leaving(key("a"), [("2026-11", "x" * 100_000, 1, 0, 0.0)])
        assert await spool.finish(final("a")) is True
    await spool.close()


async def test_on_a_full_disk_rates_eat_nothing_of_the_ballast(disk: Path) -> None:
    spool = await Spool.open(disk / "spool.db")
    with full(disk):
        with pytest.raises(SpoolSick, match="no space left"):
            await spool.keep_rates("text", b"x" * (6 << 20))
        assert (disk / "spool.db.ballast").stat().st_size == SIZE
    await spool.close()


async def test_what_schema_3_wrote_is_read_and_nothing_of_it_has_left(older: Path) -> None:
    spool = await Spool.open(older)
    assert [(each.key.id, each.received_at, each.canceled, each.egress) for each in await spool.recover()] == [
        ("a", 17.5, False, False),
        ("b", 17.5, True, False),
    ]
    assert await unsent(spool) == [("ended", b"1")]
    assert await spool.told() == {"porch": b"2"}
    assert (await spool.spending(), await spool.rates()) == ([], {})
    await spool.close()
    assert kept_aside(older) == []


async def test_what_schema_3_wrote_is_marked_and_kept_from_then_on(older: Path) -> None:
    spool = await Spool.open(older)
    await spool.leaving(key("b"), [DAY])
    await spool.close()
    spool = await Spool.open(older)
    again = await spool.recover()
    assert [(each.egress, each.job) for each in again] == [(False, job("a")), (True, job("b", "x" * 9000))]
    await spool.close()


async def test_the_tables_of_an_older_file_become_those_of_a_new_one(older: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    for each in (older, new):
        await (await Spool.open(each)).close()
    tables = "SELECT name, sql FROM sqlite_schema ORDER BY name"
    assert list(rows(older, tables)) == list(rows(new, tables))


async def test_an_older_file_that_is_damaged_is_mended_into_one_of_this_version(older: Path) -> None:
    mend(older, "it was damaged", 1)
    spool = await Spool.open(older)
    assert [(each.job is None, each.egress) for each in await spool.recover()] == [(False, False), (False, False)]
    assert await unsent(spool) == [("ended", b"1")]
    await spool.leaving(key("a"), [DAY])
    assert await spool.spending() == [DAY]
    await spool.close()


async def test_an_older_file_whose_damage_shows_later_is_mended_too(older: Path) -> None:
    overwritten(older, root_of(older, "sqlite_autoindex_requests_1"), b"\xff" * PAGE)
    spool = await Spool.open(older)
    await spool.leaving(key("a"), [DAY])
    assert [(each.key.id, each.egress) for each in await spool.recover()] == [("a", True), ("b", False)]
    await spool.close()
    assert kept_aside(older) != []


async def test_a_damaged_file_keeps_its_marks_its_totals_and_its_rates(path: Path) -> None:
    spool = await Spool.open(path)
    await spool.accept(job("a"), 1.0)
    await spool.accept(job("b"), 1.0)
    await spool.leaving(key("b"), [DAY, PORCH, MONTH])
    await spool.keep_rates("text", b"1")
    await spool.close()
    overwritten(path, root_of(path, "sqlite_autoindex_requests_1"), b"\xff" * PAGE)
    spool = await Spool.open(path)
    assert [each.egress for each in await spool.recover()] == [False, True]
    assert await spool.spending() == [MONTH, DAY, PORCH]
    assert await spool.rates() == {"text": b"1"}
    await spool.close()
    assert kept_aside(path) != []


async def test_totals_on_both_sides_of_a_damage_are_kept(path: Path) -> None:
    spool = await Spool.open(path)
    cameras = [f"porch/{n:03}{'x' * 60}" for n in range(200)]
    await spool.spent([("2026-11", camera, 1, 0, 0.0) for camera in cameras])
    await spool.close()
    at = content(path).index(cameras[100].encode())
    overwritten(path, at - at % PAGE, bytes(PAGE))
    mend(path, "it was damaged", 1)
    spool = await Spool.open(path)
    kept = [payer for _, payer, *_ in await spool.spending()]
    assert (kept[0], kept[-1]) == (cameras[0], cameras[-1])
    assert cameras[100] not in kept
    await spool.close()


async def test_where_nobody_knows_whether_bytes_left_they_are_said_to_have(path: Path) -> None:
    spool = await Spool.open(path)
    await spool.accept(job("a"), 1.0)
    await spool.close()
    edited(path, "UPDATE requests SET egress = 'perhaps'")
    spool = await Spool.open(path)
    assert [(each.job, each.egress) for each in await spool.recover()] == [(job("a"), True)]
    await spool.close()
