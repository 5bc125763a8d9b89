"""A row that is not made of what it should be: whatever of it makes sense is kept, and nobody else notices."""

import time
from pathlib import Path

import pytest
from structlog.typing import EventDict

from agent.spool import Receipt, Spool
from agent.spool.mending import mend
from tests.spool.damaging import edited
from tests.spool.samples import final, job, key, unsent

pytestmark = pytest.mark.usefixtures("logged")


@pytest.mark.parametrize(
    "damage",
    [
        "requests SET client = CAST(x'ff' AS TEXT) WHERE id = 'a'",
        "requests SET client = x'ff' WHERE id = 'a'",
        "requests SET received_at = 'noon' WHERE id = 'a'",
        "requests SET job = 'text' WHERE id = 'a'",
        "finals SET client = x'ff'",
        "finals SET topic = x'ff'",
        "finals SET correlation = 'text'",
        "finals SET payload = 5",
        "finals SET finished_at = 'noon'",
        "outbox SET final = 'text'",
        "cameras SET policy = 5",
        "requests SET egress = 'perhaps' WHERE id = 'a'",
        "spending SET tokens = 'many'",
        "rates SET value = 5",
    ],
)
async def test_a_row_that_makes_no_sense_stops_nobody(damaged: Path, damage: str) -> None:
    edited(damaged, f"UPDATE {damage}")
    for _ in range(2):
        spool = await Spool.open(damaged)
        assert "b" in [each.key.id for each in await spool.recover()]
        assert await spool.accept(job("new"), 3.0)
        await spool.finish(final("new", b"3"))
        rows = await spool.outgoing(0, 100)
        assert rows[-1].key == key("new")
        assert {(type(row.topic), type(row.payload)) for row in rows} == {(str, bytes)}
        assert {type(policy) for policy in (await spool.told()).values()} <= {bytes}
        assert {type(tokens) for _, _, _, tokens, _ in await spool.spending()} <= {int}
        assert {type(rates) for rates in (await spool.rates()).values()} <= {bytes}
        await spool.close()


async def test_a_clock_that_makes_no_sense_stops_nobody(path: Path) -> None:
    await (await Spool.open(path)).close()
    edited(path, "UPDATE clock SET shift = 'noon'")
    for now in (1.0, 2.0):
        spool = await Spool.open(path)
        await spool.accept(job(f"j{now}"), now)
        await spool.expire(now)
        await spool.clock_jumped(60.0, now)
        await spool.close()


async def test_a_request_is_not_too_late_for_a_clock_that_makes_no_sense(damaged: Path) -> None:
    edited(damaged, "UPDATE clock SET shift = 'noon'")
    before = time.time()
    spool = await Spool.open(damaged)
    assert [each.received_at >= before for each in await spool.recover()] == [True, True]
    assert await spool.expire(before) == 0
    await spool.close()


@pytest.mark.parametrize("damage", ["received_at = 'noon'", "attempt = 'one'", "canceled = 'no'"])
async def test_a_request_is_kept_whatever_else_of_its_row_makes_no_sense(damaged: Path, damage: str) -> None:
    edited(damaged, f"UPDATE requests SET {damage} WHERE id = 'a'")  # noqa: S608
    mend(damaged, "it was damaged", 1)
    spool = await Spool.open(damaged)
    first, _ = await spool.recover()
    assert (first.job, first.attempt, first.canceled) == (job("a"), 2, False)
    await spool.close()


async def test_a_request_whose_job_makes_no_sense_is_still_to_be_answered(damaged: Path) -> None:
    edited(damaged, "UPDATE requests SET job = 'text' WHERE id = 'a'")
    spool = await Spool.open(damaged)
    assert [(each.key, each.job) for each in await spool.recover()] == [(key("a"), None), (key("b"), job("b"))]
    await spool.close()


async def test_a_row_that_is_lost_is_told_of(damaged: Path, logged: list[EventDict]) -> None:
    edited(damaged, "UPDATE finals SET payload = 5 WHERE id = 'unsent'")
    mend(damaged, "it was damaged", 1)
    lost = [(each["table"], each["seq"]) for each in logged if each["event"] == "spool.row_lost"]
    assert lost == [("finals", 2)]


async def test_a_final_is_kept_whatever_else_of_its_row_makes_no_sense(damaged: Path) -> None:
    edited(damaged, "UPDATE finals SET finished_at = 'noon', correlation = 'text', repeatable = 'yes'")
    mend(damaged, "it was damaged", 1)
    spool = await Spool.open(damaged)
    assert await unsent(spool) == [("unsent", b"2")]
    assert await spool.known(key("sent")) is Receipt.FINISHED
    await spool.close()
