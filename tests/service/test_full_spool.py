"""A spool that holds as much as it may: requests are refused for now, and what is under way goes on."""

import asyncio
from collections.abc import Sequence

import pytest

from agent.bus import Subscription
from agent.bus.connection import Connection
from agent.contract.jobs import Key
from agent.settings import Spool
from agent.testing import FakeEngine
from tests.devices import Device
from tests.service.conftest import Start


async def test_a_request_for_which_there_is_no_room_is_refused_for_now(start: Start, device: Device) -> None:
    engine = FakeEngine()
    async with start(engine, drain_s=0.01, spool=Spool(max_jobs=2)):
        for job_id in ("j1", "j2", "j3"):
            device.publish("text", {"id": job_id, "prompt": "x"})
        final = await device.final("j3")
        error = final["error"]
        assert (final["state"], error["code"], error["retryable"]) == ("REJECTED", "queue_full", True)
        assert error["retry_after_s"] > 0
        assert "2 jobs are under way" in error["message"]


async def test_after_an_answer_there_is_room_and_who_was_refused_stays_so(start: Start, device: Device) -> None:
    engine = FakeEngine()
    async with start(engine, drain_s=0.01, spool=Spool(max_jobs=1)) as service:
        device.publish("text", {"id": "j1", "prompt": "x"})
        attempt = await engine.attempt(Key("dev7", "j1"))
        device.publish("text", {"id": "j2", "prompt": "x"})
        refused = await device.final("j2")
        attempt.start()
        attempt.finish()
        await device.final("j1")
        await service.outbox.flush()
        device.publish("text", {"id": "j2", "prompt": "x"})
        assert await device.final("j2", 2) == refused
        device.publish("text", {"id": "j3", "prompt": "x"})
        (await engine.attempt(Key("dev7", "j3"))).start()


async def test_a_repeat_of_a_running_job_is_not_refused_for_want_of_room(start: Start, device: Device) -> None:
    engine = FakeEngine()
    async with start(engine, drain_s=0.01, spool=Spool(max_jobs=1)):
        device.publish("text", {"id": "j1", "prompt": "x"})
        attempt = await engine.attempt(Key("dev7", "j1"))
        device.publish("text", {"id": "j1", "prompt": "x"})
        await device.caught_up()
        attempt.start()
        attempt.finish()
        assert (await device.final("j1"))["state"] == "SUCCEEDED"


async def test_what_comes_before_the_box_is_online_again_is_refused_too(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker sends what it kept for us right behind its CONNACK, long before a SUBACK over a slow link."""
    engine, suback = FakeEngine(), asyncio.Event()
    subscribe = Connection.subscribe

    async def slowly(self: Connection, subscriptions: Sequence[Subscription]) -> None:
        await subscribe(self, subscriptions)
        await suback.wait()

    async with start(engine, drain_s=0.01, spool=Spool(max_jobs=1)) as service:
        device.publish("text", {"id": "j1", "prompt": "x"})
        attempt = await engine.attempt(Key("dev7", "j1"))
        monkeypatch.setattr(Connection, "subscribe", slowly)
        assert service.bus._connection is not None
        service.bus._connection._network.stop()
        for number in range(5):
            device.publish("text", {"id": f"late{number}", "prompt": "x"})
        for number in range(5):
            assert (await device.final(f"late{number}"))["state"] == "REJECTED"
        suback.set()
        attempt.start()
        attempt.finish()
        await device.final("j1")
        await service.outbox.flush()
        device.publish("text", {"id": "j2", "prompt": "x"})
        (await engine.attempt(Key("dev7", "j2"))).start()
