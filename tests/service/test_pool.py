"""Work that boxes share: a request for a pool is given to one of its members, who answers under the pool's name."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.contract.jobs import Job, Key, Message, Reply
from agent.service import Service
from agent.settings import Device as Identity
from agent.settings import Settings
from agent.spool import Spool
from agent.testing import FakeEngine
from tests.brokers import Broker
from tests.devices import Device
from tests.service.conftest import Start
from tests.waiting import eventually


@pytest.fixture
async def client(broker: Broker, version: str) -> AsyncIterator[Device]:
    """Have a device that asks the pool, and listens for answers under its name."""
    async with Device(broker.port, version=version, node="lab") as found:
        yield found


@asynccontextmanager
async def member(start: Start, folder: Path, name: str, engine: FakeEngine) -> AsyncIterator[Service]:
    async with start(engine, pool="lab", device=Identity(id=name), state_dir=folder / name) as service:
        yield service


async def test_a_job_of_the_pool_is_answered_under_its_name(start: Start, client: Device) -> None:
    async with start(FakeEngine(words=["Hello"]), pool="lab"):
        client.publish("text", {"id": "j1", "prompt": "x"})
        final = await client.final("j1")
    assert (final["node"], final["text"], client.text("j1")) == ("box1", "Hello", "Hello")


async def test_each_job_goes_to_one_member_in_turn(start: Start, tmp_path: Path, client: Device) -> None:
    names = [f"j{n}" for n in range(6)]
    engines = FakeEngine(words=["a"]), FakeEngine(words=["b"])
    async with member(start, tmp_path, "box1", engines[0]), member(start, tmp_path, "box2", engines[1]):
        for name in names:
            client.publish("text", {"id": name, "prompt": "x"})
        nodes = [(await client.final(name))["node"] for name in names]
    assert (nodes.count("box1"), nodes.count("box2")) == (3, 3)
    assert [len(engine.attempts) for engine in engines] == [3, 3]


async def test_a_member_is_also_asked_by_its_own_name(start: Start, device: Device) -> None:
    async with start(FakeEngine(words=["Hello"]), pool="lab"):
        device.publish("text", {"id": "j1", "prompt": "x"})
        assert (await device.final("j1"))["text"] == "Hello"


async def test_a_cancel_ends_the_job_at_whichever_member_has_it_and_the_others_say_nothing(
    start: Start, tmp_path: Path, client: Device
) -> None:
    async with (
        member(start, tmp_path, "box1", FakeEngine()) as one,
        member(start, tmp_path, "box2", FakeEngine()) as two,
    ):
        for name in ("j1", "j2"):
            client.publish("text", {"id": name, "prompt": "x"})
            await client.state(name, "accepted")
        for name in ("j1", "j2"):
            client.publish("cancel", name)
        finals = [await client.final(name) for name in ("j1", "j2")]
        client.publish("cancel", "j3")
        await eventually(lambda: min(one.bus.stats.received, two.bus.stats.received) >= 4)
        assert {(final["node"], final["state"]) for final in finals} == {("box1", "CANCELED"), ("box2", "CANCELED")}
        assert (one.counters.ignored, two.counters.ignored) == (0, 0)


async def test_frames_of_cameras_are_refused_with_what_to_do(start: Start, client: Device) -> None:
    async with start(FakeEngine(), FakeEngine(), pool="lab"):
        client.publish("image/door", b"\xff\xd8\xff and so on")
        final = await client.any_final()
    assert (final["error"]["code"], "send them to one box" in final["error"]["message"]) == ("unsupported", True)


@pytest.mark.parametrize("version", ["5"])
async def test_a_response_topic_is_judged_by_the_pools_name(start: Start, client: Device) -> None:
    async with start(FakeEngine(words=["Hello"]), pool="lab"):
        client.publish("text", {"id": "j1", "prompt": "x"}, ResponseTopic="slm/lab/res/dev7/mine")
        await client.until(lambda: any(heard.properties.get("event") == "final" for heard in client.heard))
        client.publish("text", {"id": "j2", "prompt": "x"}, ResponseTopic="slm/box1/res/dev7/mine")
        assert "outside slm/lab/res/dev7/" in (await client.final("j2"))["notice"]
    assert {heard.topic for heard in client.heard if heard.body["id"] == "j1"} == {"slm/lab/res/dev7/mine"}


async def test_a_job_that_outlived_a_restart_is_answered_where_it_was_asked(
    start: Start, settings: Settings, client: Device
) -> None:
    job = Job(client="dev7", id="j1", messages=(Message(role="user", content="x"),), reply=Reply(pool="lab"))
    spool = await Spool.open(settings.spool_file)
    await spool.accept(job, time.time())
    await spool.close()
    async with start(FakeEngine(words=["Hello"])):  # not in the pool any more, either
        assert (await client.final("j1"))["attempt"] == 2


async def test_what_a_box_that_left_the_pool_is_still_given_is_answered_and_then_it_is_given_no_more(
    start: Start, client: Device, broker: Broker
) -> None:
    async with start(FakeEngine(), pool="lab"):
        pass
    for name in ("j1", "j2"):
        client.publish("text", {"id": name, "prompt": "x"})
    engine = FakeEngine(words=["Hello"])
    async with start(engine):
        for name in ("j1", "j2"):
            assert (await client.final(name))["state"] == "SUCCEEDED"
        await eventually(lambda: "Received UNSUBSCRIBE from edge-slm-box1" in broker.log)
        client.publish("text", {"id": "j3", "prompt": "x"})
        async with Device(broker.port, "marker") as marker:
            await marker.caught_up()
    assert list(engine.attempts) == [Key("dev7", "j1"), Key("dev7", "j2")]
    assert broker.log.count("Received UNSUBSCRIBE from edge-slm-box1") == 1
