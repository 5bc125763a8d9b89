"""Somebody sets the wall clock: no deadline, no interval and no retention comes sooner or later for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from agent.contract.jobs import Key
from agent.settings import Camera
from agent.settings import Spool as SpoolSettings
from agent.spool import Receipt, Spool
from agent.testing import FakeEngine
from tests.contract.pictures import JPEG
from tests.devices import Device
from tests.service.conftest import Start

DAY = 86_400.0

SetClock = Callable[[float], Awaitable[None]]


@pytest.fixture
def version() -> str:
    return "5"


@pytest.fixture(params=[DAY, -DAY], ids=["forward", "back"])
def jump(request: pytest.FixtureRequest) -> float:
    found: float = request.param
    return found


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Set the wall clock by some seconds, and wait until the box has noticed."""
    monkeypatch.setattr("agent.ageing._CLOCK_EVERY_S", 0.01)
    wall, noticed, by_s = time.time, asyncio.Event(), 0.0
    spool_jumped = Spool.clock_jumped

    async def notice(spool: Spool, by_s: float, now: float) -> None:
        await spool_jumped(spool, by_s, now)
        noticed.set()

    monkeypatch.setattr("agent.spool.Spool.clock_jumped", notice)
    monkeypatch.setattr("time.time", lambda: wall() + by_s)

    async def set_by(seconds: float) -> None:
        nonlocal by_s
        by_s = seconds
        await noticed.wait()

    return set_by


async def test_a_job_that_waits_keeps_the_rest_of_its_time(
    start: Start, device: Device, set_clock: SetClock, jump: float
) -> None:
    engine = FakeEngine(slots=1)
    async with start(engine):
        device.publish("text", {"id": "runs", "prompt": "x"})
        device.publish("text", {"id": "waits", "prompt": "x", "deadline_s": 60})
        await device.state("waits", "accepted")
        await set_clock(jump)
        for name in ("runs", "waits"):
            attempt = await engine.attempt(Key("dev7", name))
            attempt.start()
            attempt.finish()
        assert (await device.final("waits"))["state"] == "SUCCEEDED"


async def test_a_deadline_passes_when_it_would_have(
    start: Start, device: Device, set_clock: SetClock, jump: float
) -> None:
    async with start(FakeEngine(slots=1)):
        device.publish("text", {"id": "runs", "prompt": "x"})
        device.publish("text", {"id": "waits", "prompt": "x", "deadline_s": 0.5})
        await set_clock(jump)
        final = await device.final("waits")
        assert final["state"] == "TIMED_OUT"
        assert 0.5 <= final["timing"]["total_s"] < 10
        device.publish("cancel", "runs")
        await device.final("runs")


async def test_a_camera_keeps_its_interval(start: Start, device: Device, set_clock: SetClock, jump: float) -> None:
    vision = FakeEngine(words=["a cat"])
    cameras = {"porch": Camera(prompt="Who is it?", min_interval_s=0.5)}
    async with start(FakeEngine(), vision, cameras=cameras):
        device.publish("image/porch", JPEG, CorrelationData=b"f1")
        await vision.attempt(Key("dev7", "f1"))
        begun = time.monotonic()  # a moment after the first one's start, from which the interval counts
        await set_clock(jump)
        device.publish("image/porch", JPEG, CorrelationData=b"f2")
        await vision.attempt(Key("dev7", "f2"))
        assert 0.4 < time.monotonic() - begun < 10
        await device.final("f2")


async def test_a_final_is_kept_as_long_as_promised(
    start: Start, device: Device, set_clock: SetClock, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.ageing._EXPIRE_EVERY_S", 0.0)
    engine = FakeEngine(words=["Hi"])
    async with start(engine, spool=SpoolSettings(retention_s=3600)) as service:
        device.publish("text", {"id": "j1", "prompt": "x"})
        first = await device.final("j1")
        await service.outbox.flush()
        await set_clock(jump)
        await looked_for_old_finals(service.spool, monkeypatch)
        device.publish("text", {"id": "j1", "prompt": "x"})
        assert await device.final("j1", 2) == first
        assert len(engine.attempts[Key("dev7", "j1")]) == 1


async def test_a_final_goes_when_its_time_is_over(
    start: Start, device: Device, set_clock: SetClock, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.ageing._EXPIRE_EVERY_S", 0.0)
    async with start(FakeEngine(words=["Hi"]), spool=SpoolSettings(retention_s=0.5)) as service:
        device.publish("text", {"id": "j1", "prompt": "x"})
        await device.final("j1")
        await service.outbox.flush()
        await set_clock(jump)
        while await service.spool.known(Key("dev7", "j1")) is not Receipt.NEW:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the disk has nothing to wait on


async def test_a_recovered_job_has_the_rest_of_its_time(
    start: Start, device: Device, set_clock: SetClock, jump: float
) -> None:
    async with start(FakeEngine(), drain_s=0.01) as service:
        device.publish("text", {"id": "j1", "prompt": "x", "deadline_s": 60})
        await device.state("j1", "accepted")
        await set_clock(jump)
    assert service.spool.unfinished == 1
    async with start(FakeEngine(words=["Hi"])):
        assert (await device.final("j1"))["state"] == "SUCCEEDED"


async def test_a_recovered_job_has_no_more_than_the_rest_of_its_time(
    start: Start, device: Device, set_clock: SetClock, jump: float
) -> None:
    async with start(FakeEngine(), drain_s=0.01):
        device.publish("text", {"id": "j1", "prompt": "x", "deadline_s": 1})
        await device.state("j1", "accepted")
        over = time.monotonic() + 1
        await set_clock(jump)
    await asyncio.sleep(over - time.monotonic())
    engine = FakeEngine()
    async with start(engine):
        assert (await device.final("j1"))["state"] == "TIMED_OUT"
    assert engine.attempts == {}


async def looked_for_old_finals(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = asyncio.Event()
    expire = spool.expire

    async def look(before: float) -> int:
        dropped = await expire(before)
        looked.set()
        return dropped

    monkeypatch.setattr(spool, "expire", look)
    await looked.wait()
