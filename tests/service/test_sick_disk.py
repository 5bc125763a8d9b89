"""A disk that takes nothing: requests are refused for now, and an answer that exists is not given up."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.contract.jobs import Key
from agent.settings import Settings
from agent.spool import Spool, SpoolError, SpoolSick
from agent.supervisor import opened
from agent.testing import FakeEngine
from tests.devices import Device
from tests.filesystems import read_only, small_disk
from tests.service.conftest import Start
from tests.waiting import eventually


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


async def test_a_request_that_was_refused_for_the_disk_stays_refused_when_it_is_well(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(FakeEngine(words=["Hi"])) as service:
        with monkeypatch.context() as sick:
            sick.setattr(service.spool, "accept", full)
            sick.setattr(service.spool, "refuse", full)
            device.publish("text", {"id": "j1", "prompt": "x"})
            refused = await device.final("j1")
        device.publish("text", {"id": "j1", "prompt": "x"})
        assert await device.final("j1", 2) == refused
        device.publish("text", {"id": "j1", "prompt": 5})
        assert await device.final("j1", 3) == refused
        assert await service.spool.known(Key("dev7", "j1")) == "finished"


async def test_what_was_neither_stored_nor_refused_comes_again(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def lost(*_: object) -> bool:
        asked.set()
        service.bus._connection._network.stop()  # type: ignore[union-attr]
        return False

    async with start(FakeEngine(words=["Hi"])) as service:
        with monkeypatch.context() as sick:
            sick.setattr(service.spool, "accept", full)
            sick.setattr(service.spool, "refuse", full)
            sick.setattr(service.bus, "hand_over", lost)
            device.publish("text", {"id": "j1", "prompt": "x"})
            await asked.wait()
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


async def test_the_first_puback_on_a_full_disk_does_not_end_the_box(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(FakeEngine(words=["Hi"])) as service:
        with monkeypatch.context() as sick:
            sick.setattr(service.spool, "sent", full)
            device.publish("text", {"id": "j1", "prompt": "x"})
            await device.final("j1")
        device.publish("text", {"id": "j2", "prompt": "x"})
        assert (await device.final("j2"))["state"] == "SUCCEEDED"


async def test_finals_go_out_after_the_outbox_could_not_be_read(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(FakeEngine(words=["Hi"])) as service:
        with monkeypatch.context() as sick:
            sick.setattr(service.spool, "outgoing", full)
            device.publish("text", {"id": "j1", "prompt": "x"})
            await device.state("j1", "started")
        assert (await device.final("j1"))["state"] == "SUCCEEDED"


async def test_an_expiry_that_fails_does_not_end_the_box(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.spool.Spool.expire", full)
    async with start(FakeEngine(words=["Hi"])):
        device.publish("text", {"id": "j1", "prompt": "x"})
        assert (await device.final("j1"))["state"] == "SUCCEEDED"


async def test_a_repeat_of_a_running_job_is_not_refused_for_the_disk(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine()
    async with start(engine) as service:
        device.publish("text", {"id": "j1", "prompt": "x"})
        attempt = await engine.attempt(Key("dev7", "j1"))
        with monkeypatch.context() as sick:
            sick.setattr(service.spool, "accept", full)
            device.publish("text", {"id": "j1", "prompt": "x"})
            await device.caught_up()
        attempt.start()
        attempt.finish()
        assert (await device.final("j1"))["state"] == "SUCCEEDED"


async def test_a_repeat_of_a_finished_job_is_not_refused_for_the_disk(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(FakeEngine(words=["Hi"])) as service:
        device.publish("text", {"id": "j1", "prompt": "x"})
        first = await device.final("j1")
        with monkeypatch.context() as sick:
            sick.setattr(service.spool, "accept", full)
            device.publish("text", {"id": "j1", "prompt": "x"})
            await device.caught_up()
        device.publish("text", {"id": "j1", "prompt": "x"})
        assert await device.final("j1", 2) == first


async def test_a_final_that_is_posted_without_anybody_telling_goes_out(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.ageing._CLOCK_EVERY_S", 0.01)
    async with start(FakeEngine(words=["Hi"])) as service:
        device.publish("text", {"id": "j1", "prompt": "x"})
        first = await device.final("j1")
        await eventually(lambda: service.spool.unsent == 0)
        # As a mending does it that has lost the outbox.
        await service.spool.cancel(Key("dev7", "j1"))
        assert await device.final("j1", 2) == first


async def test_a_disk_that_hangs_does_not_hold_up_the_shutdown(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.service._INTAKE_S", 0.01)
    asked = asyncio.Event()

    async def hang(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with start(FakeEngine()) as service:
        monkeypatch.setattr(service.spool, "accept", hang)
        device.publish("text", {"id": "j1", "prompt": "x"})
        await asked.wait()


async def test_a_box_whose_disk_is_read_only_at_the_start_waits_for_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.supervisor._SICK_DISK_S", 0.01)
    with small_disk(tmp_path / "state", 32 << 20) as disk, capture_logs() as logged:
        with read_only(disk):
            opening = asyncio.create_task(opened(settings))
            await eventually(lambda: len(logged) >= 2)
            assert {(each["event"], each["log_level"]) for each in logged} == {("spool.sick", "error")}
        await (await opening).close()


async def test_a_disk_that_falls_sick_before_a_service_has_read_it_is_waited_for(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.service._SICK_DISK_S", 0.0)
    recover, failures = Spool.recover, [SpoolSick("the card is out")]

    async def fail_once(spool: Spool) -> object:
        if failures:
            raise failures.pop()
        return await recover(spool)

    monkeypatch.setattr(Spool, "recover", fail_once)
    async with start(FakeEngine(words=["Hello"])):
        device.publish("text", {"id": "j1", "prompt": "x"})
        await device.final("j1")
    assert failures == []


async def test_a_state_dir_that_is_no_folder_is_not_waited_for(settings: Settings) -> None:
    settings.state_dir.touch()
    with pytest.raises(SpoolError, match="make it writable, or set another state_dir"):
        await opened(settings)
