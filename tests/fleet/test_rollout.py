"""A change on its way to many boxes. The boxes are played here, on a real broker."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.client import ClientError
from agent.contract.topics import Topics
from agent.fleet import NOTHING, Result, Target, Watch, roll_out, watch
from agent.remote import digest
from agent.settings import Mqtt
from tests.brokers import Broker
from tests.devices import Device, Heard

CHANGE = b"engine: {slots: 2}"
TARGETS = [Target(name, (), Topics("slm", name)) for name in ("a", "b", "c", "d")]


class Boxes(Device):
    """Boxes that answer as they are told to, by their names; one without an answer is silent."""

    def __init__(self, port: int) -> None:
        super().__init__(port, "boxes", also=("slm/+/config/desired", "marker"))
        self.answers: dict[str, str] = {}
        self.told: list[str] = []

    def _take(self, heard: Heard) -> None:
        if heard.topic.endswith("/config/desired"):
            name = heard.topic.split("/")[1]
            self.told.append(name)
            if name in self.answers:
                self.report(name, self.answers[name], heard.payload)
        super()._take(heard)

    def report(self, name: str, state: str, payload: bytes) -> None:
        said = {"v": 1, "hash": digest(payload), "state": state, "refused": [], "detail": None}
        self.say(name, "config/reported", json.dumps(said).encode())

    def say(self, name: str, what: str, payload: bytes) -> None:
        self._client.publish(f"slm/{name}/{what}", payload, 1, retain=True)

    async def settled(self) -> None:
        """Wait until the broker has everything that was said."""
        marks = [each.topic for each in self.heard].count("marker")
        self._client.publish("marker", b"", 1)
        await self.until(lambda: [each.topic for each in self.heard].count("marker") > marks)

    def are(self, **status: str) -> None:
        for name, each in status.items():
            self.say(name, "status", each.encode())


@pytest.fixture
async def boxes(broker: Broker) -> AsyncIterator[Boxes]:
    async with Boxes(broker.port) as found:
        found.are(a="online", b="online", c="online", d="offline")
        await found.settled()
        yield found


async def push(
    broker: Broker, payload: bytes = CHANGE, wait_s: float = 5, targets: Sequence[Target] = TARGETS
) -> dict[str, str]:
    """Roll a change out; return what became of it, in the order in which that was told."""
    results: list[Result] = []
    async with Watch(Mqtt(port=broker.port), targets) as watching:
        await watching.remembered()
        await roll_out(watching, targets, payload, wait_s, results.append)
    return {each.device: each.state for each in results}


async def test_one_box_has_the_change_before_any_other_is_sent_it(broker: Broker, boxes: Boxes) -> None:
    pushing = asyncio.create_task(push(broker))
    await boxes.until(lambda: bool(boxes.told))
    assert boxes.told == ["a"]
    boxes.answers = {"b": "applied", "c": "applied"}
    boxes.report("a", "applied", CHANGE)
    assert await pushing == {"a": "applied", "b": "applied", "c": "applied", "d": "offline"}


@pytest.mark.parametrize("state", ["refused", "rolled_back"])
async def test_a_change_that_the_first_does_not_take_is_sent_to_no_other(
    broker: Broker, boxes: Boxes, state: str
) -> None:
    boxes.answers = {"a": state}
    assert await push(broker) == {"a": state, "b": "not_sent", "c": "not_sent", "d": "not_sent"}
    assert boxes.told == ["a"]


async def test_one_of_the_others_that_does_not_take_it_stops_it_and_is_told_apart(broker: Broker, boxes: Boxes) -> None:
    boxes.answers = {"a": "applied", "b": "rolled_back", "c": "applied"}
    assert await push(broker) == {"a": "applied", "b": "rolled_back", "c": "applied", "d": "not_sent"}
    assert "d" not in boxes.told


async def test_a_box_that_was_never_here_is_sent_nothing(
    broker: Broker, boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_RETAINED_S", 0.2)
    boxes.answers = dict.fromkeys("abc", "applied")
    unknown = Target("e", (), Topics("slm", "e"))
    pushed = await push(broker, targets=[*TARGETS[:2], unknown, TARGETS[3]])
    assert pushed == {"a": "applied", "b": "applied", "d": "offline", "e": "never_seen"}
    await boxes.until(lambda: "d" in boxes.told)
    assert "e" not in boxes.told


async def test_of_a_fleet_that_has_more_to_say_than_a_broker_queues_every_box_is_known(tmp_path: Path) -> None:
    # mosquitto queues 1,000 messages at QoS 1 for one client, and drops the others.
    many = [Target(f"b{n}", (), Topics("slm", f"b{n}")) for n in range(40)]
    with Broker(tmp_path, "max_queued_messages 50") as broker:
        async with Boxes(broker.port) as fleet:
            for each in many:
                fleet.report(each.id, "applied", CHANGE)
                fleet.are(**{each.id: "online"})
            await fleet.settled()
        async with Watch(Mqtt(port=broker.port), many) as watching:
            await watching.remembered()
            assert {watching.standing(each).status for each in many} == {"online"}


async def test_a_box_that_does_not_answer_stops_it_too(broker: Broker, boxes: Boxes) -> None:
    assert (await push(broker, wait_s=0.2))["a"] == "silent"
    assert boxes.told == ["a"]


async def test_a_box_that_is_offline_has_it_to_come(broker: Broker, boxes: Boxes) -> None:
    boxes.answers = dict.fromkeys("abc", "applied")
    await push(broker)
    await boxes.until(lambda: "d" in boxes.told)


async def test_the_first_is_one_that_is_online(broker: Broker, boxes: Boxes) -> None:
    boxes.are(a="offline")
    await boxes.settled()
    boxes.answers = dict.fromkeys("bc", "applied")
    assert list(await push(broker)) == ["b", "c", "a", "d"]


async def test_where_no_box_is_online_nothing_is_sent(broker: Broker, boxes: Boxes) -> None:
    boxes.are(a="offline", b="offline", c="offline")
    await boxes.settled()
    with pytest.raises(ClientError, match="none of these devices is online"):
        await push(broker)
    assert boxes.told == []


async def test_what_a_box_has_said_of_the_same_change_before_is_no_answer(broker: Broker, boxes: Boxes) -> None:
    boxes.report("a", "refused", CHANGE)
    await boxes.settled()
    boxes.answers = dict.fromkeys("abc", "applied")
    assert (await push(broker))["a"] == "applied"


async def standing(broker: Broker, name: str) -> tuple[str, str]:
    async with Watch(Mqtt(port=broker.port), TARGETS) as watching:
        await watching.remembered()
        found = watching.standing(next(each for each in TARGETS if each.id == name))
        return found.status, found.state


@pytest.mark.parametrize(
    ("desired", "reported", "state"),
    [
        (b"", None, "own"),
        (CHANGE, None, "waiting"),
        (CHANGE, ("applied", CHANGE), "applied"),
        (CHANGE, ("refused", CHANGE), "refused"),
        (CHANGE, ("applied", b"an earlier one"), "waiting"),
        (b"", ("applied", b""), "own"),
        (b"", ("applied", CHANGE), "waiting"),
        (NOTHING, ("applied", CHANGE), "waiting"),
        (NOTHING, None, "waiting"),
        (NOTHING, ("applied", NOTHING), "own"),
    ],
)
async def test_a_box_stands_as_it_was_told_and_as_it_says(
    broker: Broker, boxes: Boxes, desired: bytes, reported: Any, state: str
) -> None:
    if desired:
        boxes.say("a", "config/desired", desired)
    if reported:
        boxes.report("a", *reported)
    await boxes.settled()
    assert await standing(broker, "a") == ("online", state)


async def test_a_box_that_was_never_here_is_no_box_that_is_offline(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_RETAINED_S", 0.2)
    async with Boxes(broker.port) as boxes:
        boxes.are(a="online", b="online", c="online")
        await boxes.settled()
        assert await standing(broker, "d") == ("", "own")
