"""A whole box beside the stand-in for the cloud: what a device sees of both."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent.contract.jobs import Key
from agent.engines.base import Cost
from agent.settings import Allowance, Budget, Cloud, Settings, Spending
from agent.standin import KEY, MODELS, Fault, StandIn
from agent.testing import FakeEngine
from tests.cloud.serving import serving
from tests.devices import Device
from tests.service.conftest import Start

TEXT_MODEL = next(iter(MODELS))


@pytest.fixture
async def standin() -> AsyncIterator[tuple[StandIn, dict[str, Any]]]:
    """Run the stand-in; give it, with the setting that points there."""
    app = StandIn(first_token_s=0.01, tokens_per_s=500)
    async with serving(app) as base_url:
        cloud = Cloud(enabled=True, base_url=base_url, api_key=KEY, text_model=TEXT_MODEL, requests_per_minute=6000)
        yield app, {"cloud": cloud}


async def test_a_cloud_job_is_streamed_and_its_final_says_where_it_ran(
    start: Start, device: Device, standin: tuple[StandIn, dict[str, Any]]
) -> None:
    app, changes = standin
    async with start(FakeEngine(), **changes):
        device.publish("text", {"id": "j1", "prompt": "Hi", "placement": "cloud_only", "max_tokens": 5})
        final = await device.final("j1")
    assert final["placement"] == {
        "where": "cloud",
        "reason": "required",
        "model": TEXT_MODEL,
        "provider": "nim",
        "egress": True,
    }
    assert (final["text"], device.text("j1")) == ("cloud0 cloud1 cloud2 cloud3 cloud4",) * 2
    assert len(app.chats) == 1


async def test_what_the_cloud_fails_is_done_here_and_says_that_bytes_have_left(
    start: Start, device: Device, standin: tuple[StandIn, dict[str, Any]]
) -> None:
    app, changes = standin
    app.always = Fault.BAD_KEY
    async with start(FakeEngine(words=["Hello"]), **changes):
        device.publish("text", {"id": "j1", "prompt": "Hi", "placement": "prefer_cloud"})
        final = await device.final("j1")
    assert (final["text"], final["attempt"]) == ("Hello", 1)
    assert (final["placement"]["where"], final["placement"]["reason"], final["placement"]["egress"]) == (
        "local",
        "fallback",
        True,
    )


async def test_a_box_without_a_cloud_tells_so_and_one_with_it_tells_its_budget(
    start: Start, settings: Settings, standin: tuple[StandIn, dict[str, Any]]
) -> None:
    _, changes = standin
    heard: list[Any] = []
    for more in ({}, changes):
        async with start(FakeEngine(), **more), Device(settings.mqtt.port, "w", also=("slm/box1/metrics",)) as watcher:
            await watcher.until(lambda: any(each.topic.endswith("/metrics") for each in watcher.heard))
            heard.append(next(each.body for each in watcher.heard if each.topic.endswith("/metrics"))["cloud"])
    assert heard[0] is None
    assert heard[1]["budget_left"]["day"] == {"requests": None, "tokens": None, "money": None}


async def test_a_spent_budget_is_told_as_the_reason(
    start: Start, device: Device, standin: tuple[StandIn, dict[str, Any]]
) -> None:
    app, changes = standin
    one = Budget(box=Allowance(day=Spending(requests=1)))
    async with start(FakeEngine(), cloud=changes["cloud"].model_copy(update={"budget": one})):
        for name in ("first", "second"):
            device.publish("text", {"id": name, "prompt": "Hi", "placement": "cloud_only", "max_tokens": 2})
            await device.final(name)
    final = await device.final("second")
    assert (final["state"], final["error"]["code"], final["placement"]["reason"]) == (
        "REJECTED",
        "cloud_unavailable",
        "budget",
    )
    assert len(app.chats) == 1


async def test_a_budget_outlives_the_agent(
    start: Start, device: Device, standin: tuple[StandIn, dict[str, Any]]
) -> None:
    _, changes = standin
    one = {"cloud": changes["cloud"].model_copy(update={"budget": Budget(box=Allowance(month=Spending(requests=1)))})}
    for name in ("first", "second"):
        async with start(FakeEngine(), **one):
            device.publish("text", {"id": name, "prompt": "Hi", "placement": "cloud_only", "max_tokens": 2})
            final = await device.final(name)
    assert final["placement"]["reason"] == "budget"


async def test_that_bytes_have_left_outlives_the_agent(
    start: Start, device: Device, standin: tuple[StandIn, dict[str, Any]]
) -> None:
    app, changes = standin
    app.always = Fault.STALLED_BEFORE_HEAD
    asked = {"id": "j1", "prompt": "Hi", "placement": "prefer_cloud"}
    async with start(FakeEngine(), **changes, drain_s=0.01):
        device.publish("text", asked)
        await app.chat(1)
    async with start(FakeEngine(words=["Hello"])):
        final = await device.final("j1")
    assert (final["placement"]["where"], final["placement"]["egress"], final["attempt"]) == ("local", True, 2)


async def test_what_was_measured_outlives_the_agent(start: Start, device: Device) -> None:
    for number in range(2):
        engine = FakeEngine()
        async with start(engine):
            for name in (f"a{number}", f"b{number}"):
                device.publish("text", {"id": name, "prompt": "Hi", "max_tokens": 2})
                attempt = await engine.attempt(Key("dev7", name))
                attempt.start()
                attempt.finish(2, Cost(0.1, 0.9))
                await device.final(name)
    told = [(await device.state(name, "accepted"))["queue"]["predicted_end_s"] for name in ("a0", "b0", "a1")]
    assert told[0] is None
    assert told[1:] == [pytest.approx(1.0, rel=0.2), pytest.approx(1.0, rel=0.2)]


async def test_a_job_that_can_be_in_time_nowhere_is_refused_at_once(start: Start, device: Device) -> None:
    engine = FakeEngine()
    async with start(engine):
        device.publish("text", {"id": "a", "prompt": "Hi", "max_tokens": 2})
        attempt = await engine.attempt(Key("dev7", "a"))
        attempt.start()
        attempt.finish(2, Cost(1.0, 9.0))
        await device.final("a")
        device.publish("text", {"id": "b", "prompt": "Hi", "max_tokens": 2, "deadline_s": 5})
        final = await device.final("b")
    assert (final["state"], final["error"]["code"], final["error"]["retryable"]) == ("REJECTED", "deadline", True)
