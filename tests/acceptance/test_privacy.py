"""Everything that tries to get a private byte out of a real box, over MQTT, to an endpoint that keeps all it gets."""

import base64
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agent.models.shapes import draw
from tests.acceptance.test_worker import ChangedBox
from tests.boxes import Box
from tests.brokers import Broker
from tests.cloud.recording import Recorder, recording
from tests.contract.pictures import encoded
from tests.devices import Device

FRAME = encoded(draw(Random(4_000_001), (640, 480)).image, "JPEG", comment=b"MARK-comment;")
IMAGE = base64.b64encode(FRAME).decode()
# A box that would rather have everything done elsewhere: what stays, stays because it must.
CAMERAS = {
    "porch": {"prompt": "MARK-porch;", "placement": "local_only"},
    "yard": {"prompt": "MARK-yard;", "private": True},
    "door": {"prompt": "MARK-door;"},
}
ATTIC = b'{"private": true, "prompt": "MARK-attic;"}'
# Whoever decides, decides for the cloud, and whoever is asked whether it may, says yes.
_RECKLESS = (
    "from agent import placement",
    "from agent.engines.cloud.engine import CloudEngine",
    "placement._order = lambda job, policy: ('cloud',)",
    "CloudEngine.refusal = lambda self, job: None",
)


@pytest.fixture
async def wire() -> AsyncIterator[Recorder]:
    async with recording() as recorder:
        yield recorder


def settings(wire: Recorder, **cloud: Any) -> dict[str, Any]:
    endpoint = {
        "enabled": True,
        "base_url": f"http://127.0.0.1:{wire.port}/v1",
        "text_model": "text-model",
        "vision_model": "vision-model",
        "frames_to_cloud": "allowed",
        "requests_per_minute": 10_000,
    }
    return {"cloud": {**endpoint, **cloud}, "placement": "prefer_cloud", "cameras": CAMERAS}


def text(job_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": job_id, "prompt": f"MARK-{job_id};", "max_tokens": 4, **fields}


def arrived(wire: Recorder, job_ids: list[str]) -> list[str]:
    return [job_id for job_id in job_ids if f"MARK-{job_id};".encode() in wire.received]


def left(finals: dict[str, dict[str, Any]]) -> list[str]:
    """Return the jobs of which bytes have left the box, by their finals."""
    return [job_id for job_id, final in finals.items() if final["placement"]["egress"]]


async def test_of_a_boxs_jobs_the_endpoint_gets_those_that_nobody_keeps(
    tmp_path: Path, broker: Broker, model_folder: Path, vision_folder: Path, wire: Recorder
) -> None:
    models = {"text": str(model_folder), "vision": str(vision_folder)}
    box = Box(tmp_path, broker.port, model_folder, models=models, **settings(wire))
    async with Device(broker.port) as device:
        device._client.publish("slm/box1/config/camera/attic", ATTIC, 1, retain=True)
        async with box:
            await box.logged("camera.configured")
            await box.logged("engine.model_loaded", 2)
            asked: dict[str, tuple[str, Any]] = {
                "open": ("text", text("open")),
                "private": ("text", text("private", private=True, placement="prefer_cloud")),
                "local": ("text", text("local", placement="local_only")),
                "torn": ("text", text("torn", private=True, placement="cloud_only")),
                "hidden": (
                    "text",
                    text("hidden", prompt=f"MARK-hidden; <img src='data:image/jpeg;base64,{IMAGE[:60]}'>"),
                ),
                "picture": ("image/porch", text("picture", image=IMAGE, placement="cloud_only")),
                "yard": ("image/yard", FRAME),
                "attic": ("image/attic", FRAME),
                "porch": ("image/porch", FRAME),
                "door": ("image/door", FRAME),
                "guest": ("image/door", FRAME),
            }
            said = {"porch": ("placement", "cloud_only"), "guest": ("private", "true")}
            for job_id, (kind, payload) in asked.items():
                properties: dict[str, Any] = {} if isinstance(payload, dict) else {"CorrelationData": job_id.encode()}
                if job_id in said:
                    properties["UserProperty"] = [said[job_id], ("prompt", f"MARK-{job_id};")]
                device.publish(kind, payload, **properties)
            finals = {job_id: await device.final(job_id) for job_id in asked}
    assert arrived(wire, [*asked]) == ["open", "door"]
    assert left(finals) == ["open", "door"]
    assert b"MARK-comment" not in wire.received
    where = {job_id: final["placement"]["where"] for job_id, final in finals.items()}
    assert where == dict.fromkeys(asked, "local") | {"open": "cloud", "door": "cloud", "torn": "none"}


async def test_where_no_picture_may_leave_none_does_whatever_asks_for_it(
    tmp_path: Path, broker: Broker, vision_folder: Path, wire: Recorder
) -> None:
    models = {"text": None, "vision": str(vision_folder)}
    never = settings(wire, frames_to_cloud="never")
    async with (
        Device(broker.port) as device,
        Box(tmp_path, broker.port, Path(), models=models, **never) as box,
    ):
        await box.logged("engine.model_loaded")
        asked = ["door", "asked"]
        device.publish("image/door", FRAME, CorrelationData=b"door")
        device.publish("image/door", text("asked", image=IMAGE, placement="cloud_only"))
        device.publish("text", text("open"))
        finals = {job_id: await device.final(job_id) for job_id in [*asked, "open"]}
    assert arrived(wire, [*finals]) == ["open"]
    assert left(finals) == ["open"]
    assert finals["door"]["placement"]["where"] == "local"
    assert finals["asked"]["error"]["code"] == "privacy"


async def test_the_one_place_that_sends_refuses_what_a_wrong_decision_sends_there(
    tmp_path: Path, broker: Broker, model_folder: Path, wire: Recorder
) -> None:
    box = ChangedBox(*_RECKLESS, directory=tmp_path, port=broker.port, model=model_folder, **settings(wire))
    async with Device(broker.port) as device, box:
        await box.logged("cloud.endpoint_changed")
        kept = [text("private", private=True), text("local", placement="local_only")]
        for payload in (*kept, text("open")):
            device.publish("text", payload)
        device.publish("image/porch", text("picture", image=IMAGE))
        finals = {job_id: await device.final(job_id) for job_id in ("private", "local", "open", "picture")}
    assert arrived(wire, [*finals]) == ["open"]
    assert left(finals) == ["open"]
    codes = {job_id: (final["error"] or {}).get("code") for job_id, final in finals.items()}
    assert codes == dict.fromkeys(finals, "privacy") | {"open": None}


async def test_what_is_kept_stays_through_a_kill_and_a_box_that_cannot_do_it_any_more(
    tmp_path: Path, broker: Broker, model_folder: Path, wire: Recorder
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder, copy_function=os.link)
    kept = {
        "private": text("private", private=True, max_tokens=400),
        "local": text("local", placement="local_only", max_tokens=400),
    }
    box = Box(tmp_path, broker.port, folder, **settings(wire), engine={"slots": 1})
    async with Device(broker.port) as device, box:
        for payload in kept.values():
            device.publish("text", payload)
        await device.state("private", "started")
        await device.state("local", "accepted")
        await box.kill()
        (folder / "model.onnx").unlink()
        (folder / "model.onnx").write_bytes(b"not a graph")
        box.start()
        await box.logged("mqtt.connected", 2)
        device.publish("text", text("open", placement="prefer_local"))
        finals = {job_id: await device.final(job_id) for job_id in [*kept, "open"]}
    assert arrived(wire, [*finals]) == ["open"]
    assert left(finals) == ["open"]
    assert {finals[job_id]["error"]["code"] for job_id in kept} == {"model_unavailable"}
