"""SIGTERM in every state: the box ends well and in time, with its children, and what it keeps is answered later."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.service import Service
from agent.settings import Settings
from agent.spool import Spool
from agent.testing import FakeEngine
from tests.acceptance.playing import CAMERAS, drawings
from tests.acceptance.test_survival import MakeBox, distinct_finals, ended, story
from tests.boxes import EDGE_SLM, Box
from tests.brokers import Broker
from tests.devices import Device
from tests.waiting import eventually

DRAIN_S = 0.1
# What a shutdown may take beyond that where the broker answers. It takes a quarter of a second; the machine is busy.
SOON_S = 4.0
# For the last finals, and for the goodbye.
SILENT_BROKER_S = 11.0
LONG = 2000


async def stops_well(box: Box, within_s: float = DRAIN_S + SOON_S, number: signal.Signals = signal.SIGTERM) -> None:
    """Expect that a signal ends the box with 0, in time, without a traceback and without a child."""
    children = [ended(pid) for pid in box.workers]
    asked = time.monotonic()
    assert await box.stop(number) == 0
    took_s = time.monotonic() - asked
    await asyncio.gather(*children)
    assert took_s < within_s
    assert "Traceback" not in box._log.read_text()


async def is_offline(broker: Broker) -> None:
    """Wait until the broker says that the box is offline."""
    async with Device(broker.port, "watcher", also=("slm/box1/status",)) as watcher:
        await watcher.until(lambda: any(heard.payload == b"offline" for heard in watcher.heard))


@pytest.fixture
async def device(broker: Broker) -> AsyncIterator[Device]:
    async with Device(broker.port, keep=True) as found:
        yield found


async def test_while_the_model_loads(box: MakeBox, broker: Broker, device: Device) -> None:
    async with box(drain_s=DRAIN_S) as running:
        device.publish("text", story(0))
        await device.state("j0", "accepted")
        await stops_well(running)
        await is_offline(broker)
        running.start()
        await device.final("j0")
    assert len(distinct_finals(device, 1)[0]) == 1


@pytest.mark.parametrize("state", ["prefill", "decoding", "worker hangs", "worker restarts"])
async def test_while_a_job_runs_and_the_queue_is_full(box: MakeBox, broker: Broker, device: Device, state: str) -> None:
    prompt = "word " * 600 if state == "prefill" else "Tell me a story."
    async with box(drain_s=DRAIN_S, engine={"slots": 1}, queue={"max_jobs": 1}) as running:
        await running.logged("engine.model_loaded")
        device.publish("text", {"id": "j0", "prompt": prompt, "max_tokens": 60})
        await device.state("j0", "started")
        device.publish("text", story(1, max_tokens=2))
        await device.state("j1", "accepted")
        device.publish("text", story(2))
        assert (await device.final("j2"))["error"]["code"] == "queue_full"
        match state:
            case "decoding":
                await device.until(lambda: device.of("j0", "chunk") != [])
            case "worker hangs":
                os.kill(running.worker, signal.SIGSTOP)
            case "worker restarts":
                os.kill(running.worker, signal.SIGKILL)
                await running.logged("engine.worker_lost")
        await stops_well(running)
        await is_offline(broker)
        assert (await running.logged("service.drained"))["jobs_kept"] >= 1
        running.start()
        await device.final("j1")
        await device.final("j0")
    assert [len(finals) for finals in distinct_finals(device, 3)] == [1, 1, 1]


async def test_while_a_picture_is_looked_at(
    tmp_path: Path, broker: Broker, device: Device, vision_folder: Path
) -> None:
    models = {"text": None, "vision": str(vision_folder)}
    async with Box(tmp_path, broker.port, Path(), models=models, cameras=CAMERAS, drain_s=DRAIN_S) as running:
        await running.logged("engine.model_loaded")
        # A full-size model's call takes minutes; the small one's, until it is let go on.
        os.kill(running.worker, signal.SIGSTOP)
        device.publish("image/porch", drawings(1)[0], CorrelationData=b"j0")
        await device.state("j0", "accepted")
        await stops_well(running)
        running.start()
        await device.final("j0")
    assert len(distinct_finals(device, 1)[0]) == 1


async def test_while_the_broker_is_away(box: MakeBox, broker: Broker) -> None:
    running = box(drain_s=DRAIN_S)
    broker.kill()
    running.start()
    try:
        await running.logged("mqtt.connect_failed", 2)
        await stops_well(running)
    finally:
        await running.kill()


async def test_while_the_broker_does_not_answer(box: MakeBox, broker: Broker, device: Device) -> None:
    async with box(drain_s=DRAIN_S) as running:
        await running.logged("engine.model_loaded")
        device.publish("text", story(0, max_tokens=60))
        await device.until(lambda: device.of("j0", "chunk") != [])
        broker.freeze()
        try:
            await stops_well(running, DRAIN_S + SILENT_BROKER_S + SOON_S)
        finally:
            broker.thaw()
        await is_offline(broker)
        running.start()
        await device.final("j0")
    assert len(distinct_finals(device, 1)[0]) == 1


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_drain_at_once(
    box: MakeBox, broker: Broker, device: Device, second: signal.Signals
) -> None:
    async with box(drain_s=600) as running:
        await running.logged("engine.model_loaded")
        device.publish("text", story(0, max_tokens=LONG))
        await device.until(lambda: device.of("j0", "chunk") != [])
        os.kill(running.pid, signal.SIGTERM)
        await running.logged("service.draining")
        await stops_well(running, SOON_S, second)
        await is_offline(broker)


async def test_while_the_disk_hangs(tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.spool.writer._CLOSE_S", 0.1)
    monkeypatch.setattr("agent.service._FLUSH_S", 0.1)
    asked, well = threading.Event(), threading.Event()

    def hang(*_: object, **_named: object) -> bool:
        asked.set()
        return well.wait()

    monkeypatch.setattr("agent.spool.database.Database.finish", hang)
    mine = {"device": {"id": "box1"}, "mqtt": {"port": broker.port}, "state_dir": tmp_path / "state", "drain_s": 0.1}
    settings = Settings.model_validate(mine)

    async def serve() -> None:
        spool = await Spool.open(settings.spool_file)
        stop = asyncio.Event()
        service = Service(settings, spool, {"text": FakeEngine(words=["Hi"])})
        running = asyncio.create_task(service.run(stop))
        await eventually(lambda: service.bus.connected)
        async with Device(broker.port) as device:
            device.publish("text", story(0))
            await asyncio.to_thread(asked.wait)
        stop.set()
        await running
        await spool.close()

    # A loop of its own, which is to end with what it leaves behind.
    try:
        async with asyncio.timeout(SOON_S):
            await asyncio.to_thread(asyncio.run, serve())
    finally:
        well.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_the_program_starts_ends_it_without_a_traceback(
    box: MakeBox, number: signal.Signals
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(EDGE_SLM, "run", "--config", str(box().config)), stderr=asyncio.subprocess.PIPE
    )
    # Half-way through its imports, before it could handle a signal.
    while "pydantic_core" not in Path(f"/proc/{process.pid}/maps").read_text():  # noqa: ASYNC240
        assert process.returncode is None  # a dead one's maps are empty for ever
        await asyncio.sleep(0.001)
    process.send_signal(number)
    _, error = await process.communicate()
    assert process.returncode in {-signal.SIGTERM, 130}
    assert b"Traceback" not in error
