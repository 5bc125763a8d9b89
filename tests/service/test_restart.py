"""What an earlier run of the agent left in the spool, and what the next one makes of it."""

import asyncio
import sqlite3
import time

import pytest

from agent.contract.jobs import Job, Key, Message
from agent.settings import Settings
from agent.spool import Spool
from agent.testing import FakeEngine
from tests.devices import Device
from tests.service.conftest import Start


def job(name: str) -> Job:
    return Job(client="dev7", id=name, messages=(Message(role="user", content="x"),))


async def leave(
    settings: Settings, *names: str, received_at: float | None = None, deadline_s: float | None = None
) -> None:
    """Leave accepted jobs behind, as a crash would."""
    spool = await Spool.open(settings.spool_file)
    for name in names:
        await spool.accept(job(name).model_copy(update={"deadline_s": deadline_s}), received_at or time.time())
    await spool.close()


async def never(*_: object) -> None:
    await asyncio.Event().wait()


async def test_an_unfinished_job_runs_again_as_a_new_attempt(start: Start, settings: Settings, device: Device) -> None:
    await leave(settings, "j1")
    async with start(FakeEngine(words=["Hello"])):
        final = await device.final("j1")
        assert (final["state"], final["attempt"]) == ("SUCCEEDED", 2)


async def test_unfinished_jobs_start_in_their_order(start: Start, settings: Settings, device: Device) -> None:
    await leave(settings, "a", "b", "c")
    engine = FakeEngine(slots=1, words=["Hello"])
    async with start(engine):
        await device.final("c")
        assert list(engine.attempts) == [Key("dev7", name) for name in ("a", "b", "c")]


async def test_an_unsent_final_goes_out(start: Start, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.service._FLUSH_S", 0.01)
    engine = FakeEngine(words=["Hello"])
    async with start(engine) as service:
        monkeypatch.setattr(service.bus, "deliver", never)
        device.publish("text", {"id": "j1", "prompt": "x"})
        await device.until(lambda: device.text("j1") == "Hello")
    assert device.of("j1", "final") == []
    async with start(engine):
        assert (await device.final("j1"))["state"] == "SUCCEEDED"
        assert len(engine.attempts[Key("dev7", "j1")]) == 1


async def test_a_deadline_that_passed_while_the_agent_was_down_is_honoured(
    start: Start, settings: Settings, device: Device
) -> None:
    await leave(settings, "j1", received_at=time.time() - 60, deadline_s=30)
    async with start(FakeEngine(words=["Hello"])):
        assert (await device.final("j1"))["state"] == "TIMED_OUT"


async def test_a_cancel_survives_a_crash(start: Start, settings: Settings, device: Device) -> None:
    await leave(settings, "j1")
    spool = await Spool.open(settings.spool_file)
    await spool.cancel(Key("dev7", "j1"))
    await spool.close()
    async with start(FakeEngine(words=["Hello"])):
        assert (await device.final("j1"))["state"] == "CANCELED"


async def test_a_request_that_this_version_cannot_read_ends_as_internal(
    start: Start, settings: Settings, device: Device
) -> None:
    await leave(settings, "j1")
    with sqlite3.connect(settings.spool_file) as database:
        database.execute("UPDATE requests SET job = CAST('{}' AS BLOB)")
    database.close()
    async with start(FakeEngine(words=["Hello"])):
        final = await device.final("j1")
        assert (final["state"], final["error"]["code"]) == ("REJECTED", "internal")
    async with start(FakeEngine(words=["Hello"])) as service:
        assert service.spool.unfinished == 0
