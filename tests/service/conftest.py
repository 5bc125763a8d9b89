"""The whole agent in the test's own process, on a real broker and a real disk, with an engine that obeys."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.service import Service
from agent.settings import Settings
from agent.spool import Room, Spool
from agent.testing import FakeEngine
from tests.brokers import Broker
from tests.devices import Device

if TYPE_CHECKING:
    from agent.placement import Station

Start = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture(params=["5", "3.1.1"])
def version(request: pytest.FixtureRequest) -> str:
    """Each test that a device takes part in is run for both versions of MQTT."""
    found: str = request.param
    return found


@pytest.fixture
def settings(tmp_path: Path, broker: Broker) -> Settings:
    return Settings.model_validate(
        {"device": {"id": "box1"}, "mqtt": {"port": broker.port}, "state_dir": tmp_path / "state", "metrics_s": 0.1}
    )


@pytest.fixture
def start(settings: Settings) -> Start:
    """Start a box; it is drained at the end of the block, unless it was ended before."""

    @asynccontextmanager
    async def start(engine: FakeEngine, vision: FakeEngine | None = None, **changes: Any) -> AsyncIterator[Service]:
        changed = settings.model_copy(update=changes)
        stop = asyncio.Event()
        both: dict[Station, FakeEngine | None] = {"text": engine, "vision": vision}
        engines = {station: each for station, each in both.items() if each is not None}
        room = Room(changed.spool.max_jobs, changed.spool.max_bytes)
        spool = await Spool.open(changed.spool_file, room)
        service = Service(changed, spool, engines)
        running = asyncio.create_task(service.run(stop))
        try:
            while not service.bus.connected:
                await asyncio.sleep(0.005)
                assert not running.done(), running
            yield service
        finally:
            stop.set()
            try:
                await running
            finally:
                await spool.close()

    return start


@pytest.fixture
async def device(broker: Broker, version: str) -> AsyncIterator[Device]:
    async with Device(broker.port, version=version) as found:
        yield found
