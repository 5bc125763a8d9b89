"""A disk that takes nothing: requests are refused for now, and an answer that exists is not given up."""

import pytest

from agent.contract.jobs import Key
from agent.spool import SpoolError
from agent.testing import FakeEngine
from tests.devices import Device
from tests.service.conftest import Start


async def full(*_: object) -> None:
    raise SpoolError("the disk is full")


async def test_a_request_that_cannot_be_stored_is_refused_for_now(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(FakeEngine(words=["Hi"])) as service:
        monkeypatch.setattr(service.spool, "accept", full)
        device.publish("text", {"id": "j1", "prompt": "x"})
        final = await device.final("j1")
        assert (final["state"], final["error"]["retryable"]) == ("REJECTED", True)
        assert "the disk is full" in final["error"]["message"]


async def test_a_refusal_that_cannot_be_stored_still_goes_out(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(FakeEngine(words=["Hi"])) as service:
        monkeypatch.setattr(service.spool, "refuse", full)
        device.publish("text", {"id": "j1", "prompt": 5})
        assert (await device.final("j1"))["state"] == "REJECTED"


async def test_a_final_that_cannot_be_stored_goes_out_once_the_disk_is_well(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine()
    async with start(engine) as service:
        device.publish("text", {"id": "j1", "prompt": "x"})
        attempt = await engine.attempt(Key("dev7", "j1"))
        with monkeypatch.context() as sick:
            sick.setattr(service.spool, "finish", full)
            attempt.start()
            attempt.say("Hi")
            attempt.finish()
            await device.until(lambda: device.text("j1") == "Hi")
            assert device.of("j1", "final") == []
        assert (await device.final("j1"))["text"] == "Hi"


async def test_a_cancel_that_cannot_be_stored_still_acts(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine()
    async with start(engine) as service:
        device.publish("text", {"id": "j1", "prompt": "x"})
        (await engine.attempt(Key("dev7", "j1"))).start()
        monkeypatch.setattr(service.spool, "cancel", full)
        device.publish("cancel", "j1")
        assert (await device.final("j1"))["state"] == "CANCELED"
