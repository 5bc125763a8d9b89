"""Frames as cameras send them: a real broker and a real spool, with an engine that obeys."""

import asyncio
import json
from typing import Any

import pytest

from agent.contract.jobs import Job, Key
from agent.engines.base import SimilarFrame
from agent.settings import Camera, Limits, Source
from agent.spool import Receipt, Spool
from agent.testing import FakeEngine
from tests.contract.pictures import JPEG, PNG, plain, text
from tests.devices import Device
from tests.service.conftest import Start
from tests.waiting import eventually

PORCH = {"porch": Camera(prompt="Who is it?")}


def seeing() -> FakeEngine:
    return FakeEngine(slots=1, words=["a", " cat"])


def finals(device: Device) -> list[dict[str, Any]]:
    return [heard.body for heard in device.heard if heard.topic.endswith("/final")]


def prompts(engine: FakeEngine) -> list[str]:
    return [attempts[0].job.messages[0].text for attempts in engine.attempts.values()]


async def publish(device: Device, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
    """Publish as somebody who knows nothing of us."""
    sent = device._client.publish(topic, payload, qos, retain)
    await asyncio.to_thread(sent.wait_for_publish, 10)


async def test_a_raw_frame_is_answered_with_its_cameras_question(start: Start, device: Device) -> None:
    vision = seeing()
    async with start(FakeEngine(), vision, cameras=PORCH):
        device.publish("image/porch", JPEG)
        final = await device.any_final()
        assert (final["state"], final["text"], final["camera"]) == ("SUCCEEDED", "a cat", "porch")
    (attempts,) = vision.attempts.values()
    assert (attempts[0].job.pictures, prompts(vision)) == ((JPEG,), ["Who is it?"])


async def test_the_states_of_a_frame_name_its_camera(start: Start, device: Device) -> None:
    async with start(FakeEngine(), seeing(), cameras=PORCH):
        device.publish("image/porch", JPEG)
        final = await device.any_final()
        assert [body["camera"] for body in device.of(final["id"], "state")] == ["porch", "porch"]


async def test_a_json_job_with_pictures_is_answered_under_its_id(start: Start, device: Device) -> None:
    vision = seeing()
    async with start(FakeEngine(), vision):
        device.publish("image/porch", {"id": "j1", "prompt": "Which is red?", "images": [text(PNG), text(JPEG)]})
        assert (await device.final("j1"))["state"] == "SUCCEEDED"
    assert vision.attempts[Key("dev7", "j1")][0].job.pictures == (PNG, JPEG)


async def test_text_goes_to_the_text_model_and_pictures_to_the_other(start: Start, device: Device) -> None:
    text_engine, vision = FakeEngine(words=["Hi"]), seeing()
    async with start(text_engine, vision, cameras=PORCH):
        device.publish("text", {"id": "t1", "prompt": "Hello"})
        device.publish("image/porch", JPEG)
        await device.until(lambda: len(finals(device)) == 2)
    assert (prompts(text_engine), prompts(vision)) == (["Hello"], ["Who is it?"])


async def test_a_retained_message_configures_a_camera_before_the_first_frame(start: Start, device: Device) -> None:
    vision = seeing()
    await publish(device, "slm/box1/config/camera/attic", b'{"prompt": "Is there a mouse?"}', retain=True)
    async with start(FakeEngine(), vision):
        device.publish("image/attic", JPEG)
        await device.any_final()
    assert prompts(vision) == ["Is there a mouse?"]


MOUSE = b'{"prompt": "Is there a mouse?"}'


async def test_frames_that_the_broker_kept_are_asked_what_was_told_before_the_box_went_away(
    start: Start, device: Device
) -> None:
    async with start(FakeEngine(), seeing()) as service:
        await publish(device, "slm/box1/config/camera/attic", MOUSE, retain=True)
        await eventually(lambda: "1 told" in repr(service.intake._cameras))
    for number in range(40):
        await publish(device, "slm/box1/req/dev7/image/attic", plain(20 + number, 30))
    vision = seeing()
    async with start(FakeEngine(), vision):
        await device.until(lambda: len(finals(device)) == 40)
    assert {(body["error"] or {"code": "ok"})["code"] for body in finals(device)} <= {"ok", "superseded"}
    assert {*prompts(vision)} == {"Is there a mouse?"}


async def test_frames_that_the_broker_kept_are_asked_what_was_told_while_the_box_was_away(
    start: Start, device: Device
) -> None:
    async with start(FakeEngine(), seeing()):
        pass  # from now on the broker keeps what comes
    await publish(device, "slm/box1/config/camera/attic", MOUSE, retain=True)
    await publish(device, "slm/box1/req/dev7/image/attic", JPEG)
    async with start(FakeEngine(), seeing()):
        assert (await device.any_final())["state"] == "SUCCEEDED"


async def test_what_was_taken_back_while_the_broker_knew_nothing_of_the_box_is_forgotten(
    start: Start, device: Device, broker: Any, version: str
) -> None:
    async with start(FakeEngine(), seeing()) as service:
        await publish(device, "slm/box1/config/camera/attic", MOUSE, retain=True)
        await eventually(lambda: "1 told" in repr(service.intake._cameras))
    async with Device(broker.port, "edge-slm-box1", version=version):
        pass  # a clean session of the same name ends the box's own
    await publish(device, "slm/box1/config/camera/attic", b"", retain=True)
    async with start(FakeEngine(), seeing()):
        device.publish("image/attic", JPEG)
        assert (await device.any_final())["error"]["code"] == "bad_request"


async def test_a_camera_is_configured_while_the_box_runs(start: Start, device: Device) -> None:
    vision = seeing()
    async with start(FakeEngine(), vision, cameras=PORCH):
        await publish(device, "slm/box1/config/camera/porch", b'{"prompt": "Is it a cat?"}')
        device.publish("image/porch", JPEG)
        await device.any_final()
    assert prompts(vision) == ["Is it a cat?"]


async def test_a_bad_config_message_is_counted_and_changes_nothing(start: Start, device: Device) -> None:
    vision = seeing()
    async with start(FakeEngine(), vision, cameras=PORCH) as service:
        await publish(device, "slm/box1/config/camera/porch", b'{"promt": "x"}')
        device.publish("image/porch", JPEG)
        await device.any_final()
        assert service.counters.ignored == 1
    assert prompts(vision) == ["Who is it?"]


async def test_a_users_own_property_asks_something_else(start: Start, device: Device, version: str) -> None:
    if version == "3.1.1":
        pytest.skip("3.1.1 has no user properties")
    vision = seeing()
    async with start(FakeEngine(), vision, cameras=PORCH):
        device.publish("image/porch", JPEG, UserProperty=("prompt", "What colour?"), CorrelationData=b"f1")
        assert (await device.final("f1"))["state"] == "SUCCEEDED"
    assert prompts(vision) == ["What colour?"]


async def test_the_latest_frame_wins_and_the_older_one_is_told(start: Start, device: Device) -> None:
    vision = FakeEngine(slots=1)
    async with start(FakeEngine(), vision, cameras=PORCH):
        device.publish("image/porch", plain(20, 20))
        await eventually(lambda: len(vision.attempts) == 1)
        running = next(iter(vision.attempts.values()))[0]
        device.publish("image/porch", plain(21, 20))
        device.publish("image/porch", plain(22, 20))
        superseded = await device.any_final()
        assert (superseded["state"], superseded["error"]["code"]) == ("CANCELED", "superseded")
        running.start()
        running.finish()
        await eventually(lambda: len(vision.attempts) == 2)
        latest = list(vision.attempts.values())[1][0]
        latest.start()
        latest.finish()
        await device.until(lambda: len(finals(device)) == 3)
        assert latest.job.pictures == (plain(22, 20),)


async def test_every_frame_of_a_fast_camera_is_answered_once_and_one_waits_at_most(
    start: Start, device: Device
) -> None:
    vision = FakeEngine(slots=1)
    async with start(FakeEngine(), vision, cameras=PORCH, drain_s=0.01) as service:
        most = 0
        for number in range(100):
            device.publish("image/porch", plain(20 + number, 30))
            await asyncio.sleep(0.002)
            most = max(most, service.dispatcher.loads["vision"].queued)
        await device.until(lambda: len(finals(device)) == 98)
        assert most == 1
        assert {body["error"]["code"] for body in finals(device)} == {"superseded"}
        # One runs, and the last one waits.
        assert [each.job.pictures for each in service.dispatcher._lines["vision"].queue._waiting.values()] == [
            (plain(119, 30),)
        ]


async def test_a_frame_waits_for_its_cameras_interval(start: Start, device: Device) -> None:
    vision = seeing()
    cameras = {"porch": Camera(prompt="Who?", min_interval_s=3600)}
    async with start(FakeEngine(), vision, cameras=cameras, drain_s=0.01) as service:
        device.publish("image/porch", plain(20, 20))
        await device.any_final()
        device.publish("image/porch", plain(21, 20))
        device.publish("image/porch", plain(22, 20))
        await device.until(lambda: len(finals(device)) == 2)
        assert finals(device)[1]["error"]["code"] == "superseded"
        assert (service.dispatcher.loads["vision"].queued, len(vision.attempts)) == (1, 1)


async def test_a_frame_that_looks_the_same_is_told_so_and_counted(start: Start, device: Device) -> None:
    vision = FakeEngine(slots=1)
    async with start(FakeEngine(), vision, cameras=PORCH) as service:
        device.publish("image/porch", JPEG)
        await eventually(lambda: len(vision.attempts) == 1)
        next(iter(vision.attempts.values()))[0].fail(SimilarFrame())
        final = await device.any_final()
        assert (final["state"], final["error"]["code"]) == ("CANCELED", "superseded")
        assert service.counters.similar_frames == 1


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "bad_request"),
        (b"no picture", "bad_request"),
        (JPEG[:-10], "bad_request"),
        (plain(1, 1), "bad_request"),
        (plain(20_000, 10), "bad_request"),
        (JPEG + b"PK\3\4", "bad_request"),
        (plain(1000, 1001), "too_large"),
        (JPEG + b"\0" * 100_000, "too_large"),
        (json.dumps({"prompt": "x", "image": "!"}).encode(), "bad_request"),
        (json.dumps({"prompt": "x", "images": ["AAAA"] * 100}).encode(), "too_large"),
        (json.dumps({"prompt": "x", "image": f"data:image/png;base64,{text(JPEG)}"}).encode(), "bad_request"),
    ],
    ids=[
        "empty",
        "not a picture",
        "truncated",
        "1x1",
        "20000x10",
        "polyglot",
        "too many pixels",
        "too many bytes",
        "garbage for base64",
        "100 pictures",
        "the wrong name",
    ],
)
async def test_a_bad_picture_is_refused_before_an_engine_sees_it(
    start: Start, device: Device, payload: bytes, code: str
) -> None:
    vision = seeing()
    async with start(FakeEngine(), vision, cameras=PORCH, limits=Limits(image_bytes=50_000, image_pixels=1_000_000)):
        device.publish("image/porch", payload)
        final = await device.any_final()
        assert (final["state"], final["error"]["code"], final["camera"]) == ("REJECTED", code, "porch")
    assert vision.attempts == {}


FRIGATE = {"frigate": Source(topic="frigate/{camera}/+/snapshot", prompt="What is seen?")}


@pytest.mark.parametrize("qos", [0, 1])
async def test_frigates_snapshots_are_answered_under_the_sources_name(
    start: Start, device: Device, version: str, broker: Any, qos: int
) -> None:
    vision = seeing()
    async with (
        start(FakeEngine(), vision, sources=FRIGATE),
        Device(broker.port, "frigate", version=version) as reader,
    ):
        await publish(device, "frigate/porch/person/snapshot", JPEG, qos=qos, retain=True)
        final = await reader.any_final()
        assert (final["client"], final["camera"], final["text"]) == ("frigate", "porch", "a cat")
    assert prompts(vision) == ["What is seen?"]


async def test_a_stale_retained_snapshot_is_no_job(start: Start, device: Device) -> None:
    vision = seeing()
    await publish(device, "frigate/porch/person/snapshot", JPEG, retain=True)
    async with start(FakeEngine(), vision, sources=FRIGATE):
        await device.caught_up()
    assert vision.attempts == {}


async def test_what_is_no_frame_on_a_sources_topic_is_passed_over(start: Start, device: Device) -> None:
    vision = seeing()
    async with start(FakeEngine(), vision, sources=FRIGATE) as service:
        await publish(device, "frigate/porch/person/snapshot", b"")
        await publish(device, "frigate/porch/person/snapshot", b'{"prompt": "x"}')
        await device.caught_up()
        assert service.counters.ignored == 2
    assert vision.attempts == {}


async def test_a_frame_at_qos_0_without_an_id_is_never_written_down(start: Start, device: Device) -> None:
    vision = FakeEngine(slots=1)
    async with start(FakeEngine(), vision, cameras=PORCH, drain_s=0.01) as service:
        device.publish("image/porch", JPEG, qos=0)
        await eventually(lambda: len(vision.attempts) == 1)
        assert service.spool.unfinished == 0


async def test_an_answer_to_a_frame_at_qos_0_is_kept_until_the_broker_has_it(start: Start, device: Device) -> None:
    async with start(FakeEngine(), seeing(), cameras=PORCH) as service:
        device.publish("image/porch", JPEG, qos=0)
        final = await device.any_final()
        assert final["state"] == "SUCCEEDED"
        await eventually(lambda: service.spool.unsent == 0)


async def test_an_outdated_frame_at_qos_0_is_told_so_and_nothing_of_it_is_written_down(
    start: Start, device: Device
) -> None:
    vision = FakeEngine(slots=1)
    async with start(FakeEngine(), vision, cameras=PORCH, drain_s=0.01) as service:
        device.publish("image/porch", plain(20, 20), qos=0)
        await eventually(lambda: len(vision.attempts) == 1)
        device.publish("image/porch", plain(21, 20), qos=0)
        device.publish("image/porch", plain(22, 20), qos=0)
        final = await device.any_final()
        assert final["error"]["code"] == "superseded"
        assert await service.spool.known(Key("dev7", final["id"])) == "new"


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Make a disk that takes requests when the event is set, and not before."""
    free = asyncio.Event()
    accept = Spool.accept

    async def when_free(self: Spool, job: Job, received_at: float) -> Receipt:
        await free.wait()
        return await accept(self, job, received_at)

    monkeypatch.setattr(Spool, "accept", when_free)
    return free


async def framed(device: Device, *names: str) -> None:
    """Publish frames with ids, and wait until the box has read them."""
    for name in names:
        device.publish("image/porch", plain(20 + len(name), 20), CorrelationData=name.encode())
    await device.caught_up()


async def test_of_frames_that_wait_for_the_disk_the_latest_is_written(
    start: Start, broker: Any, slow_disk: asyncio.Event
) -> None:
    vision = seeing()
    async with start(FakeEngine(), vision, cameras=PORCH), Device(broker.port) as device:
        await framed(device, "f0", "f1", "f2")
        assert (await device.final("f1"))["error"]["code"] == "superseded"
        slow_disk.set()
        assert (await device.final("f2"))["state"] == "SUCCEEDED"


async def test_a_frame_that_waits_for_the_disk_can_be_canceled(
    start: Start, broker: Any, slow_disk: asyncio.Event
) -> None:
    vision = FakeEngine(slots=1)
    async with start(FakeEngine(), vision, cameras=PORCH, drain_s=0.01), Device(broker.port) as device:
        await framed(device, "f0", "f1")
        device.publish("cancel", "f1")
        device.publish("text", {"id": "marker2", "prompt": 5})
        await device.final("marker2")
        slow_disk.set()
        assert (await device.final("f1"))["error"]["code"] == "canceled"
    assert Key("dev7", "f1") not in vision.attempts


async def test_frames_that_wait_for_the_disk_are_not_superseded_by_their_own_redelivery(
    start: Start, broker: Any, slow_disk: asyncio.Event
) -> None:
    vision = seeing()
    async with start(FakeEngine(), vision, cameras=PORCH), Device(broker.port) as device:
        await framed(device, "f0", "f1", "f0", "f1")
        slow_disk.set()
        assert (await device.final("f1"))["state"] == "SUCCEEDED"


async def test_a_frame_at_qos_0_can_be_canceled(start: Start, device: Device) -> None:
    vision = FakeEngine(slots=1)
    async with start(FakeEngine(), vision, cameras=PORCH):
        device.publish("image/porch", JPEG, qos=0)
        await eventually(lambda: len(vision.attempts) == 1)
        (key,) = vision.attempts
        device.publish("cancel", key.id)
        assert (await device.final(key.id))["state"] == "CANCELED"


async def test_finals_that_nobody_can_ask_for_again_do_not_stay_on_disk(start: Start, device: Device) -> None:
    async with start(FakeEngine(), seeing(), cameras=PORCH) as service:
        for number in range(10):
            device.publish("image/porch", plain(20 + number, 30))
        await device.until(lambda: len(finals(device)) == 10)
        await eventually(lambda: service.spool.unsent == 0)
        assert [await service.spool.known(Key("dev7", body["id"])) for body in finals(device)] == ["new"] * 10


async def test_frames_that_outlive_the_agent_are_answered_after_it(start: Start, device: Device) -> None:
    vision = FakeEngine(slots=1)
    async with start(FakeEngine(), vision, cameras=PORCH, drain_s=0.01):
        device.publish("image/porch", plain(20, 20))
        await eventually(lambda: len(vision.attempts) == 1)
        device.publish("image/porch", plain(21, 20))
        await device.caught_up()
    async with start(FakeEngine(), seeing(), cameras=PORCH):
        await device.until(lambda: len(finals(device)) == 3)  # the marker's is the third
    ended = sorted((body["state"], body["attempt"]) for body in finals(device) if body["id"] != "marker")
    assert ended == [("CANCELED", 2), ("SUCCEEDED", 2)]


async def test_the_birth_message_tells_what_the_box_sees(start: Start, broker: Any) -> None:
    async with start(FakeEngine(), seeing()), Device(broker.port, "reader", also=("slm/box1/info",)) as reader:
        await reader.until(lambda: any(heard.topic.endswith("/info") for heard in reader.heard))
        info = next(heard.body for heard in reader.heard if heard.topic.endswith("/info"))
        assert [model["modalities"] for model in info["models"]] == [["text"], ["text", "image"]]
