"""The contract as a device sees it: a real broker, a real spool, both versions of MQTT."""

import asyncio
from typing import Any

import pytest

from agent.contract.jobs import Job, Key
from agent.engines.base import Health
from agent.settings import Queue
from agent.spool import Receipt
from agent.testing import FakeEngine
from tests.brokers import Broker
from tests.contract.pictures import PNG, text
from tests.devices import Device
from tests.service.conftest import Start
from tests.waiting import eventually


def talking() -> FakeEngine:
    return FakeEngine(words=["Hello", " world"])


async def test_a_job_is_accepted_started_streamed_and_ended(start: Start, device: Device) -> None:
    async with start(talking()):
        device.publish("text", {"id": "j1", "prompt": "Hi"})
        final = await device.final("j1")
        assert (final["state"], final["text"], final["error"]) == ("SUCCEEDED", "Hello world", None)
        assert [body["state"] for body in device.of("j1", "state")] == ["accepted", "started"]
        await device.until(lambda: device.text("j1") == "Hello world")


async def test_a_final_has_every_field_of_the_contract(start: Start, device: Device) -> None:
    async with start(talking()):
        device.publish("text", {"id": "j1", "prompt": "Hi"})
        final = await device.final("j1")
        timing = final.pop("timing")
        assert sorted(timing) == ["first_token_s", "queued_s", "tokens_per_s", "total_s"]
        assert final == {
            "v": 1,
            "id": "j1",
            "node": "box1",
            "client": "dev7",
            "state": "SUCCEEDED",
            "text": "Hello world",
            "finish_reason": "stop",
            "attempt": 1,
            "seq": 2,
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "cached_prompt_tokens": 0, "image_tokens": 0},
            "placement": {
                "where": "local",
                "reason": "preferred",
                "model": "fake",
                "provider": "none",
                "egress": False,
            },
            "error": None,
        }


async def test_plain_text_without_an_id_is_answered_under_a_new_one(start: Start, device: Device) -> None:
    async with start(talking()):
        device.publish("text", "Hi")
        final = await device.any_final()
        assert (final["state"], len(final["id"])) == ("SUCCEEDED", 16)


async def test_without_stream_the_final_comes_alone(start: Start, device: Device) -> None:
    async with start(talking()):
        device.publish("text", {"id": "j1", "prompt": "Hi", "stream": False})
        assert (await device.final("j1"))["text"] == "Hello world"
        assert device.of("j1", "chunk") == []


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"id": "j1", "prompt": "x", "colour": "red"}, "bad_request"),
        ({"id": "j1", "prompt": 5}, "bad_request"),
        (b'{"id": "j1", "prompt": "x", "temperature": NaN}', "bad_request"),
        (b'{"id": "j1", "prompt": ' + b"[" * 100_000, "bad_request"),
        (b'{"id": "j1", "prompt": "' + b"x" * 10_000_000 + b'"}', "too_large"),
        ({"id": "j1", "prompt": "x", "placement": "cloud_only"}, "cloud_unavailable"),
        ({"id": "j1", "prompt": "x", "model": "gpt-4"}, "model_unavailable"),
        ({"id": "j1", "prompt": "x", "image": text(PNG)}, "unsupported"),
    ],
)
async def test_what_cannot_be_served_is_rejected_under_its_id(
    start: Start, device: Device, payload: Any, code: str
) -> None:
    async with start(talking()):
        device.publish("text", payload)
        final = await device.final("j1")
        assert (final["state"], final["error"]["code"]) == ("REJECTED", code)


@pytest.mark.parametrize("payload", [b"", b"\xff\xfe", b"{", {"id": "a/+/#", "prompt": "x"}])
async def test_what_has_no_readable_id_is_rejected_under_a_new_one(start: Start, device: Device, payload: Any) -> None:
    async with start(talking()):
        device.publish("text", payload)
        assert (await device.any_final())["error"]["code"] == "bad_request"


async def test_a_frame_is_refused_at_once_by_a_box_without_vision(start: Start, device: Device) -> None:
    async with start(talking()):
        device.publish("image/porch", b"\xff\xd8\xff\xe0 not really a picture")
        assert (await device.any_final())["error"]["code"] == "unsupported"


async def test_a_box_that_met_everything_bad_still_answers(start: Start, device: Device) -> None:
    async with start(talking()) as service:
        for payload in (b"", b"\xff", b"{" * 5000, b"\x00" * 5000, b'{"id":"\\ud800"}'):
            for kind in ("text", "cancel", "image/porch", "image/ä", "nonsense"):
                device.publish(kind, payload)
        device.publish("text", {"id": "after", "prompt": "Hi"})
        assert (await device.final("after"))["state"] == "SUCCEEDED"
        assert service.counters.broken == 0


async def test_a_full_queue_refuses_at_once_and_says_when_to_try_again(start: Start, device: Device) -> None:
    engine = FakeEngine(slots=1)
    async with start(engine, queue=Queue(max_jobs=1), drain_s=0.01):
        device.publish("text", {"id": "runs", "prompt": "x"})
        await engine.attempt(Key("dev7", "runs"))
        device.publish("text", {"id": "waits", "prompt": "x"})
        device.publish("text", {"id": "refused", "prompt": "x"})
        final = await device.final("refused")
        assert (final["error"]["code"], final["error"]["retryable"]) == ("queue_full", True)
        assert final["error"]["retry_after_s"] >= 1


@pytest.mark.parametrize("payload", ["j1", '{"id": "j1"}'])
async def test_a_cancel_ends_a_running_job(start: Start, device: Device, payload: str) -> None:
    engine = FakeEngine()
    async with start(engine):
        device.publish("text", {"id": "j1", "prompt": "x"})
        (await engine.attempt(Key("dev7", "j1"))).start()
        await device.state("j1", "started")
        device.publish("cancel", payload)
        assert (await device.final("j1"))["state"] == "CANCELED"


async def test_a_cancel_that_follows_its_request_at_once_is_not_lost(start: Start, device: Device) -> None:
    async with start(FakeEngine()):
        device.publish("text", {"id": "j1", "prompt": "x"})
        device.publish("cancel", "j1")
        assert (await device.final("j1"))["state"] == "CANCELED"


async def test_a_client_cannot_cancel_anothers_job(start: Start, broker: Broker, device: Device) -> None:
    engine = FakeEngine()
    async with start(engine), Device(broker.port, "other") as other:
        device.publish("text", {"id": "j1", "prompt": "x"})
        attempt = await engine.attempt(Key("dev7", "j1"))
        other.publish("cancel", "j1")
        other.publish("text", {"id": "j2", "prompt": "x"})
        later = await engine.attempt(Key("other", "j2"))  # so the cancel was handled before
        assert not attempt.closed.is_set()
        for each in (attempt, later):
            each.start()
            each.finish()
        assert (await device.final("j1"))["state"] == "SUCCEEDED"


async def test_a_repeat_of_a_running_job_changes_nothing(start: Start, device: Device) -> None:
    engine = FakeEngine()
    async with start(engine):
        for _ in range(3):
            device.publish("text", {"id": "j1", "prompt": "x"})
        attempt = await engine.attempt(Key("dev7", "j1"))
        await device.caught_up()
        attempt.start()
        attempt.finish()
        await device.final("j1")
        assert len(engine.attempts[Key("dev7", "j1")]) == 1


async def test_a_repeat_of_a_finished_job_gets_the_stored_final_again(start: Start, device: Device) -> None:
    engine = talking()
    async with start(engine):
        device.publish("text", {"id": "j1", "prompt": "x"})
        first = await device.final("j1")
        device.publish("text", {"id": "j1", "prompt": "something else"})
        assert await device.final("j1", 2) == first
        assert len(engine.attempts[Key("dev7", "j1")]) == 1


async def test_a_bad_repeat_of_a_running_job_does_not_end_it(start: Start, device: Device) -> None:
    engine = FakeEngine()
    async with start(engine):
        device.publish("text", {"id": "j1", "prompt": "x"})
        attempt = await engine.attempt(Key("dev7", "j1"))
        device.publish("text", {"id": "j1", "prompt": 5})
        await device.caught_up()
        attempt.start()
        attempt.finish()
        assert (await device.final("j1"))["state"] == "SUCCEEDED"


async def test_a_job_accepted_while_the_model_fails_is_refused(
    start: Start, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine()
    engine.health = Health("loading", "fake")
    async with start(engine) as service:
        gate, inside, accept = asyncio.Event(), asyncio.Event(), service.spool.accept

        async def slow(job: Job, received_at: float) -> Receipt:
            inside.set()
            await gate.wait()
            return await accept(job, received_at)

        monkeypatch.setattr(service.spool, "accept", slow)
        device.publish("text", {"id": "j1", "prompt": "x"})
        await inside.wait()
        engine.become(Health("failed", "fake", detail="damaged"))
        gate.set()
        assert (await device.final("j1"))["error"]["code"] == "model_unavailable"


async def test_refusals_that_nobody_can_ask_for_again_are_not_kept(start: Start, device: Device) -> None:
    async with start(FakeEngine(words=["Hi"])) as service:
        device.publish("text", b"\xff")
        final = await device.any_final()
        await device.caught_up()
        await eventually(lambda: not service.spool.unsent)
        assert await service.spool.known(Key("dev7", final["id"])) is Receipt.NEW
        assert await service.spool.known(Key("dev7", "marker")) is Receipt.FINISHED


async def test_a_cancel_of_a_finished_job_has_its_final_sent_again(start: Start, device: Device) -> None:
    async with start(talking()):
        device.publish("text", {"id": "j1", "prompt": "x"})
        first = await device.final("j1")
        device.publish("cancel", "j1")
        assert await device.final("j1", 2) == first


@pytest.mark.parametrize(("kind", "payload"), [("cancel", "no such id"), ("cancel", "unknown"), ("nonsense", "x")])
async def test_what_nobody_can_be_answered_for_is_counted(
    start: Start, device: Device, kind: str, payload: str
) -> None:
    async with start(talking()) as service:
        device.publish(kind, payload)
        await device.caught_up()
        # Only what is subscribed to arrives at all.
        assert service.counters.ignored == (1 if kind == "cancel" else 0)


async def test_a_message_expiry_is_the_deadline(start: Start, broker: Broker) -> None:
    async with start(FakeEngine()), Device(broker.port) as device:
        device.publish("text", {"id": "j1", "prompt": "x"}, MessageExpiryInterval=1)
        assert (await device.final("j1"))["state"] == "TIMED_OUT"


async def test_a_retained_request_is_no_job(start: Start, device: Device) -> None:
    device.publish("text", {"id": "old", "prompt": "x"}, retain=True)
    async with start(talking()):
        device.publish("text", {"id": "new", "prompt": "x"})
        await device.final("new")
        assert device.of("old", "final") == []


async def test_the_box_says_what_it_is_and_how_it_is(start: Start, broker: Broker) -> None:
    async with start(talking()), Device(broker.port, "watcher", also=("slm/box1/+",)) as watcher:
        await watcher.until(
            lambda: (
                {heard.topic for heard in watcher.heard}
                >= {f"slm/box1/{each}" for each in ("status", "info", "metrics")}
            )
        )
        said = {heard.topic.rpartition("/")[2]: heard for heard in watcher.heard}
        assert said["status"].payload == b"online"
        assert said["info"].body["models"][0]["name"] == "fake"
        assert said["metrics"].body["queued"] == 0


async def test_the_box_says_goodbye(start: Start, broker: Broker) -> None:
    async with Device(broker.port, "watcher", also=("slm/box1/status",)) as watcher:
        async with start(talking()):
            pass
        await watcher.until(lambda: watcher.heard[-1:] != [] and watcher.heard[-1].payload == b"offline")


async def test_correlation_data_is_the_id_and_is_echoed(start: Start, broker: Broker) -> None:
    async with start(talking()), Device(broker.port) as device:
        device.publish("text", "Hi", CorrelationData=b"req-1")
        await device.final("req-1")
        assert {heard.correlation for heard in device.heard} == {b"req-1"}


async def test_a_response_topic_gets_every_event_with_its_kind(start: Start, broker: Broker) -> None:
    async with start(talking()), Device(broker.port, also=("clients/dev7/#",)) as device:
        device.publish("text", {"id": "j1", "prompt": "Hi"}, ResponseTopic="clients/dev7/in")
        await device.until(lambda: any(heard.properties.get("event") == "final" for heard in device.heard))
        assert {heard.topic for heard in device.heard} == {"clients/dev7/in"}
        assert {heard.properties["event"] for heard in device.heard} == {"state", "chunk", "final"}


async def test_a_response_topic_of_others_is_not_used_and_the_final_says_so(start: Start, broker: Broker) -> None:
    async with start(talking()), Device(broker.port, also=("home/door/open",)) as device:
        device.publish("text", {"id": "j1", "prompt": "Hi"}, ResponseTopic="home/door/open")
        assert (await device.final("j1"))["notice"].startswith("the response topic was not used")
        assert not any(heard.topic == "home/door/open" for heard in device.heard)
