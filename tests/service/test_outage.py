"""The broker is away, for long, or forgets everything: what was accepted is answered all the same."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from agent import outbox
from agent.bus import Shorten, TryLaterError, patience
from agent.contract.jobs import Job, Message
from agent.contract.messages import Outgoing
from agent.service import Service
from agent.settings import Settings
from agent.spool import Spool
from agent.testing import FakeEngine
from tests.brokers import Broker
from tests.devices import Device
from tests.service.conftest import Start
from tests.waiting import eventually

# An hour's worth for a small box with a small model.
HOUR = 3000
# Finals under way at a time, and so those that a lost connection has sent twice.
WINDOW = 32


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Start a mosquitto that keeps whatever a slow device has not read."""
    directory = tmp_path / "broker"
    directory.mkdir()
    with Broker(directory, "max_queued_messages 0") as running:
        yield running


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_S", 0.02)
    monkeypatch.setattr(patience, "_MOST_S", 0.1)


async def accepted(settings: Settings, count: int) -> list[str]:
    """Leave accepted jobs of two clients by turns; return their ids in order."""
    spool = await Spool.open(settings.spool_file)
    names = [f"j{number}" for number in range(count)]
    message = (Message(role="user", content="x"),)
    jobs = [Job(client=f"dev{number % 2}", id=name, messages=message) for number, name in enumerate(names)]
    await asyncio.gather(*(spool.accept(job, time.time()) for job in jobs))
    await spool.close()
    return names


@asynccontextmanager
async def away(settings: Settings) -> AsyncIterator[Service]:
    """Run a box that need not have a broker."""
    stop = asyncio.Event()
    spool = await Spool.open(settings.spool_file)
    service = Service(settings, spool, {"text": FakeEngine(slots=1, words=["Hello"])})
    running = asyncio.create_task(service.run(stop))
    try:
        yield service
    finally:
        stop.set()
        await running
        await spool.close()


async def done(service: Service, count: int) -> None:
    """Wait until that many finals are stored."""
    await eventually(lambda: service.spool.unfinished == 0 and service.spool.unsent == count, every_s=0.01)


@asynccontextmanager
async def devices(port: int) -> AsyncIterator[list[Device]]:
    """Have the two clients listen, under sessions that outlive the broker's absence."""
    async with Device(port, "dev0", keep=True) as one, Device(port, "dev1", keep=True) as other:
        yield [one, other]


def stop(broker: Broker) -> None:
    """Stop it in good order: after kill -9 it would have forgotten some of what it acknowledged."""
    assert broker._process is not None
    broker._process.terminate()
    broker._process.wait()
    broker.kill()


def finals(device: Device) -> list[str]:
    """Return the ids of the finals heard, in order."""
    return [heard.topic.split("/")[-2] for heard in device.heard if heard.topic.endswith("/final")]


async def answered(device: Device, count: int) -> None:
    """Wait until a device has the finals of that many jobs."""
    await device.until(lambda: len(set(finals(device))) >= count)


def firsts(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


async def test_an_hour_of_finals_goes_out_once_each_and_in_order(settings: Settings, broker: Broker) -> None:
    names = await accepted(settings, HOUR)
    async with devices(broker.port) as both:
        stop(broker)
        async with away(settings) as service:
            await done(service, HOUR)
            in_memory = len(service.bus._outflow._deliveries)
            broker.start()
            await service.outbox.flush()
            for each in both:
                await answered(each, HOUR // 2)
        heard = [finals(each) for each in both]
    assert in_memory == WINDOW
    assert heard == [names[::2], names[1::2]]


async def test_a_broker_that_dies_half_way_costs_a_windowful_sent_twice(settings: Settings, broker: Broker) -> None:
    names = await accepted(settings, 600)
    async with devices(broker.port) as both:
        stop(broker)
        async with away(settings) as service:
            await done(service, 600)
            broker.start()
            await eventually(lambda: service.spool.unsent < 550, every_s=0.01)
            stop(broker)
            left = service.spool.unsent
            broker.start()
            await service.outbox.flush()
            for each in both:
                await answered(each, 300)
        heard = [finals(each) for each in both]
    assert left > WINDOW
    assert [firsts(each) for each in heard] == [names[::2], names[1::2]]
    # By what the broker received: it sends again by itself what its devices have not acknowledged.
    received = [line for line in broker.log.splitlines() if "PUBLISH from edge-slm-box1" in line and "/final'" in line]
    assert 600 <= len(received) <= 600 + WINDOW


async def test_an_agent_killed_in_the_outage_sends_every_final_when_the_broker_is_back(
    tmp_path: Path, settings: Settings, broker: Broker
) -> None:
    names = await accepted(settings, 300)
    config = tmp_path / "box.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", include={"device", "mqtt", "state_dir"})))
    async with devices(broker.port) as both:
        stop(broker)
        for _ in range(2):
            box = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "agent.bench.child", "fake", config, stderr=asyncio.subprocess.PIPE
            )
            assert box.stderr is not None
            await box.stderr.readuntil(b"job.finished")
            box.kill()
            await box.communicate()
        broker.start()
        async with away(settings) as service:
            await service.outbox.flush()
            for each in both:
                await answered(each, 150)
        heard = [finals(each) for each in both]
    assert [sorted(each) for each in heard] == [sorted(names[::2]), sorted(names[1::2])]


async def test_a_final_that_the_broker_does_not_take_now_keeps_none_from_going_out(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_FIRST_PUT_OFF_S", 0.01)
    refused = [f"j{number}" for number in range(2 * WINDOW)]
    may_pass = asyncio.Event()
    async with start(FakeEngine(words=["Hello"])) as service:
        deliver = service.bus.deliver

        async def over_quota(out: Outgoing, shorten: Shorten | None = None) -> None:
            if out.topic.split("/")[-2] in refused and not may_pass.is_set():
                raise TryLaterError("Quota exceeded")
            await deliver(out, shorten)

        monkeypatch.setattr(service.bus, "deliver", over_quota)
        for name in refused:
            device.publish("text", {"id": name, "prompt": "x"})
        await eventually(lambda: service.spool.unsent == len(refused), every_s=0.01)
        device.publish("text", {"id": "other", "prompt": "x"})
        await device.final("other")
        assert finals(device) == ["other"]
        may_pass.set()
        await service.outbox.flush()
        await device.until(lambda: len(finals(device)) > len(refused))
    assert sorted(finals(device)) == sorted([*refused, "other"])


async def test_a_broker_that_forgets_everything_costs_no_request_that_the_box_has_acknowledged(
    start: Start, broker: Broker, device: Device
) -> None:
    engine = FakeEngine(slots=4, words=["Hello"])
    async with start(engine) as service:
        for number in range(100):
            device.publish("text", {"id": f"j{number}", "prompt": "x"})
        await device.until(lambda: len(device.heard) > 40)
        broker.kill()
        for file in broker._log.parent.glob("*.db"):
            file.unlink()
        broker.start()
        # A device that is unsure asks again: under the same id, nothing is run twice.
        await eventually(lambda: service.bus.connected, every_s=0.01)
        for number in range(100):
            device.publish("text", {"id": f"j{number}", "prompt": "x"})
        await device.until(lambda: {f"j{number}" for number in range(100)} <= set(finals(device)))
    assert {len(attempts) for attempts in engine.attempts.values()} == {1}
