"""The cloud engine's books over a real spool: what is noted before a byte leaves, and what a later run knows of it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.accounts import Accounts
from agent.budget import Budget, prompt_tokens
from agent.contract.errors import Code, JobError
from agent.contract.events import Usage
from agent.contract.jobs import Job, Key, Message
from agent.settings import Allowance, Price, Spending
from agent.settings import Budget as Bounds
from agent.spool import Spool
from tests.filesystems import failing_disk

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
JOB = Job(client="dev", id="a", messages=(Message(role="user", content="hi"),))


class Box:
    """Accounts over a spool, and which jobs they have marked."""

    def __init__(self, spool: Spool, bound: Spending) -> None:
        self.spool = spool
        self.budget = Budget(Bounds(box=Allowance(day=bound)), Price(prompt=1, completion=1))
        self.left: list[Key] = []
        self.accounts = Accounts(self.budget, spool, self.left.append, clock=lambda: NOON)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
async def box(path: Path) -> AsyncIterator[Box]:
    spool = await Spool.open(path)
    yield Box(spool, Spending(requests=1))
    await spool.close()


async def egress(spool: Spool) -> list[bool]:
    return [each.egress for each in await spool.recover()]


async def test_a_job_that_leaves_is_marked_and_counted_on_disk_and_in_memory(box: Box) -> None:
    await box.spool.accept(JOB, NOON)
    assert box.accounts.refusal(JOB) is None
    await box.accounts.leaving(JOB)
    assert box.left == [JOB.key]
    assert await egress(box.spool) == [True]
    assert {row[:3] for row in await box.spool.spending()} == {("2026-11", "", 1), ("2026-11-22", "", 1)}
    refused = box.accounts.refusal(JOB)
    assert refused is not None
    assert refused.word == "budget"


async def test_a_prompt_that_nobody_counts_is_charged_as_it_was_estimated(box: Box) -> None:
    asked = JOB.model_copy(update={"pictures": (b"1",)})
    assert box.accounts.prompt_tokens(asked) == prompt_tokens(asked) > 2500


async def test_what_a_job_has_used_is_charged_when_it_is_known(box: Box) -> None:
    await box.accounts.leaving(JOB)
    await box.accounts.returned(JOB, Usage(prompt_tokens=30, completion_tokens=12))
    assert set(await box.spool.spending()) == {("2026-11", "", 1, 42, 42e-6), ("2026-11-22", "", 1, 42, 42e-6)}
    assert "0 under way" in repr(box.accounts)


async def test_a_later_run_goes_on_with_the_same_budget(box: Box, path: Path) -> None:
    await box.accounts.leaving(JOB)
    await box.spool.close()
    again = Box(await Spool.open(path), Spending(requests=1))
    await again.accounts.remember()
    assert again.accounts.refusal(JOB) is not None
    assert again.budget.left(NOON)["day"]["requests"] == 0
    await again.spool.close()


async def test_a_job_that_is_canceled_while_the_disk_works_has_not_left(box: Box) -> None:
    leaving = asyncio.create_task(box.accounts.leaving(JOB))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert box.left == []


async def test_of_many_that_leave_at_once_none_is_forgotten(path: Path) -> None:
    spool = await Spool.open(path)
    box = Box(spool, Spending())
    jobs = [JOB.model_copy(update={"id": f"j{n}"}) for n in range(50)]

    await asyncio.gather(*map(box.accounts.leaving, jobs))
    assert {row[2:4] for row in await spool.spending()} == {(50, 0)}
    await asyncio.gather(*(box.accounts.returned(job, Usage(completion_tokens=2)) for job in jobs))
    assert {row[2:4] for row in await spool.spending()} == {(50, 100)}
    await spool.close()


async def test_what_a_disk_does_not_take_note_of_stays_and_is_not_counted(tmp_path: Path) -> None:
    with failing_disk(tmp_path / "disk") as fail:
        spool = await Spool.open(tmp_path / "disk" / "spool.db")
        box = Box(spool, Spending(requests=1))
        fail()
        with capture_logs() as logged:
            with pytest.raises(JobError) as stays:
                await box.accounts.leaving(JOB)
            await box.accounts.returned(JOB, Usage())
        assert (stays.value.code, stays.value.word) == (Code.CLOUD_UNAVAILABLE, "disk")
        assert [(each["event"], each["id"]) for each in logged] == [
            ("egress.not_stored", "a"),
            ("spending.not_stored", "a"),
        ]
        assert box.left == []
        assert box.accounts.refusal(JOB) is None
        await spool.close()
