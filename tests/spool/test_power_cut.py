"""The power goes between any two writes, and within one: what was told to be durable is there, and all is whole."""

import contextlib
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from agent.spool import Spool
from tests.spool.samples import final, job, key

WAL_HEADER, FRAME = 32, 24 + 4096

# Requests, finals, what is in the outbox, and what is spent.
State = tuple[list[tuple[Any, ...]], ...]


@dataclass
class History:
    """A spool's two files at their end, the database before and after the WAL was copied back, and what it held.

    Attributes:
        held: how long the WAL was after each commit, and what the spool held then.

    """

    before: bytes
    after: bytes
    wal: bytes
    held: list[tuple[int, State]]


def content(path: Path) -> bytes:
    return path.read_bytes()


def read(database: sqlite3.Connection) -> State:
    return tuple(
        database.execute(query).fetchall()
        for query in (
            "SELECT client, id, attempt, canceled, job, egress FROM requests ORDER BY seq",
            "SELECT client, id, payload FROM finals ORDER BY seq",
            "SELECT finals.id, outbox.seq FROM outbox LEFT JOIN finals ON finals.seq = final ORDER BY outbox.seq",
            "SELECT * FROM spending",
        )
    )


@pytest.fixture
async def history(path: Path) -> History:
    spool = await Spool.open(path)
    wal = path.with_name(path.name + "-wal")
    before = content(path)
    held: list[tuple[int, State]] = []

    async def note() -> None:
        held.append((wal.stat().st_size, await spool._do(lambda open_: read(open_._connection), durable=False)))

    await note()
    for n in range(12):
        await spool.accept(job(f"j{n}", "x" * (1 + 800 * n)), 1.0)
        await note()
        await spool.leaving(key(f"j{n}"), [("2026-11", "", n + 1, 0, 0.0), (f"2026-11-{n + 1:02}", "", 1, 0, 0.0)])
        await note()
        if n % 3:
            await spool.finish(final(f"j{n}", b"y" * 600 * n))
            await note()
            # Without an fsync of its own; whatever of it is there is whole as well.
            await spool.sent([row.seq for row in (await spool.outgoing(0, 2))[1:]])
            await note()
        else:
            await spool.cancel(key(f"j{n}"))
            await note()
            await spool.refuse(final(f"r{n}"))
            await note()
    written = content(wal)
    await spool.close()
    return History(before, content(path), written, held)


def after_the_cut(path: Path, database: bytes, wal: bytes) -> State:
    path.write_bytes(database)
    path.with_name(path.name + "-wal").write_bytes(wal)
    with contextlib.closing(sqlite3.connect(path)) as opened:
        opened.execute("PRAGMA synchronous = OFF")
        assert opened.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        return read(opened)


def cuts(wal: bytes) -> Iterator[int]:
    """Yield the ends of all frames, and places within them: in its header, behind it, and in its page."""
    ends = range(WAL_HEADER, len(wal) + 1, FRAME)
    return chain([0, 16], *((end, end + 12, end + 24, end + random.randrange(25, FRAME)) for end in ends))


def told(history: History, cut: int) -> State:
    return next(state for length, state in reversed(history.held) if length <= max(cut, history.held[0][0]))


async def test_the_last_commit_before_the_cut_is_what_is_there(history: History, path: Path) -> None:
    first = history.held[0][0]
    for cut in cuts(history.wal):
        if cut >= first:
            assert after_the_cut(path, history.before, history.wal[:cut]) == told(history, cut), cut


async def test_rubbish_behind_the_cut_is_not_taken_for_a_commit(history: History, path: Path) -> None:
    for cut, _ in history.held:
        rubbish = random.randbytes(2 * FRAME)
        assert after_the_cut(path, history.before, history.wal[:cut] + rubbish) == told(history, cut), cut


async def test_after_every_commit_a_job_of_which_bytes_left_is_in_the_totals(history: History) -> None:
    for _, (requests, _, _, spending) in history.held:
        marked = [int(job_id[1:]) for _, job_id, *_, egress in requests if egress]
        counted = {period: count for period, _, count, *_ in spending}
        assert counted.get("2026-11", 0) >= max(marked, default=-1) + 1


async def test_after_every_commit_a_key_is_unfinished_or_has_its_final(history: History) -> None:
    for _, (requests, finals, outbox, _) in history.held:
        assert not {row[:2] for row in requests} & {row[:2] for row in finals}
        assert all(final_id is not None for final_id, _ in outbox)


async def test_a_wal_that_was_copied_back_by_half_is_copied_again(history: History, path: Path) -> None:
    pages = len(history.after) // 4096
    for _ in range(40):
        half = bytearray(history.after)
        for page in random.sample(range(pages), random.randrange(pages)):
            at = page * 4096
            half[at : at + 4096] = history.before[at : at + 4096].ljust(4096, b"\0")
        assert after_the_cut(path, bytes(half), history.wal) == history.held[-1][1]
