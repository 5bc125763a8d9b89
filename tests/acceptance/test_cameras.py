"""Cameras that are faster than the model, and Frigate, against a real box."""

from pathlib import Path
from random import Random

import pytest
import yaml

from agent.models.shapes import draw
from tests.acceptance.playing import CAMERAS, drawings, play
from tests.boxes import Box
from tests.brokers import Broker
from tests.contract.pictures import encoded
from tests.devices import Device

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.timeout(180)
async def test_two_fast_cameras_hold_up_neither_each_other_nor_text(
    tmp_path: Path, broker: Broker, vision_folder: Path
) -> None:
    models = {"text": None, "vision": str(vision_folder)}
    async with Box(tmp_path, broker.port, Path(), models=models, cameras=CAMERAS) as box:
        await box.logged("engine.model_loaded")
        played = await play(drawings(20), 6, 30, box, broker.port)
    looked_at = [final["camera"] for final in played.answered]
    assert len(played.frames) == played.sent
    assert len(played.answered) + played.superseded == played.sent
    # Both have their turns. The last two frames, when the cameras have stopped, may be of either.
    assert abs(looked_at.count("porch") - looked_at.count("yard")) <= 2
    # One slot: a text waits for the frame that runs and, one time in four, for the next; for nothing behind that.
    assert played.longest_text_wait_s < 2 * played.longest_frame_s
    # What is looked at is the camera's latest frame. The last one of each waits for the other's and for a text.
    assert played.oldest_look_s < 3 * played.longest_frame_s
    # In six seconds allocators have not settled; what waited without a bound would be hundreds of megabytes.
    assert max(played.growth) < 1.25


async def test_the_readmes_frigate_box_answers_frigates_snapshots(
    tmp_path: Path, broker: Broker, vision_folder: Path
) -> None:
    blocks = README.read_text().split("```yaml\n")[1:]
    (settings,) = [yaml.safe_load(block.split("```")[0]) for block in blocks if "sources:" in block]
    drawn = draw(Random(4_000_000), (1280, 720))
    snapshot = encoded(drawn.image, "JPEG")
    models = {"text": None, "vision": str(vision_folder)}
    mine = {"cameras": settings["cameras"], "sources": settings["sources"]}
    async with Device(broker.port, "frigate") as reader:
        # As Frigate publishes them: retained, at QoS 0, among much else.
        reader._client.publish("frigate/garden/cat/snapshot", snapshot, 0, retain=True)
        async with Box(tmp_path, broker.port, Path(), models=models, **mine) as box:
            await box.logged("engine.model_loaded")
            for topic, payload in [
                ("frigate/available", b"online"),
                ("frigate/front_door/person", b"1"),
                ("frigate/events", b'{"type": "new", "after": {"camera": "front_door", "label": "person"}}'),
                ("frigate/front_door/person/snapshot", snapshot),
            ]:
                reader._client.publish(topic, payload, 0, retain=True)
            final = await reader.any_final()
            assert (final["camera"], final["text"]) == ("front_door", drawn.caption)
            # The one that was retained from before is no job.
            assert len([heard for heard in reader.heard if heard.topic.endswith("/final")]) == 1
