"""What a real model sees in pictures that it never saw, through everything that is real."""

import base64
import random
from pathlib import Path

import pytest

from agent.contract.jobs import Detail
from agent.models.shapes import answer, draw
from tests.acceptance.examining import DETAILS, Mistake, examine, seeing
from tests.boxes import Box, edge_slm
from tests.brokers import Broker
from tests.contract.pictures import encoded
from tests.devices import Device


@pytest.mark.timeout(400)
async def test_held_out_pictures_are_described_at_each_detail(
    tmp_path: Path, broker: Broker, vision_folder: Path
) -> None:
    async with seeing(tmp_path, broker.port, vision_folder), Device(broker.port) as device:
        marks = {detail: await examine(device, 40 if detail == "low" else 12, detail) for detail in DETAILS}
    assert {detail for detail, found in marks.items() if found.share < 0.95} == set(), marks


async def test_of_two_pictures_it_is_told_which_is_which(tmp_path: Path, broker: Broker, vision_folder: Path) -> None:
    async with seeing(tmp_path, broker.port, vision_folder), Device(broker.port) as device:
        marks = await examine(device, 16, "auto", pairs=True)
    assert marks.share >= 0.95


@pytest.mark.parametrize(
    ("mistake", "detail", "pairs"),
    [
        ("channels", "low", False),
        ("channels", "auto", False),
        ("crops", "auto", False),
        ("pictures", "low", True),
    ],
)
async def test_a_mistake_in_how_pictures_are_prepared_is_seen_in_the_answers(
    tmp_path: Path, broker: Broker, vision_folder: Path, mistake: Mistake, detail: Detail, pairs: bool
) -> None:
    async with seeing(tmp_path, broker.port, vision_folder, mistake), Device(broker.port) as device:
        marks = await examine(device, 16, detail, pairs=pairs)
    assert marks.share < 0.5


async def test_edge_slm_ask_shows_pictures(tmp_path: Path, broker: Broker, vision_folder: Path) -> None:
    drawn = [draw(random.Random(2_000_000 + number), (640, 480)) for number in (1, 2)]
    files = [tmp_path / f"{number}.jpg" for number in (1, 2)]
    for file, each in zip(files, drawn, strict=True):
        file.write_bytes(encoded(each.image, "JPEG"))
    async with Box(tmp_path, broker.port, Path(), models={"text": None, "vision": str(vision_folder)}) as box:
        await box.logged("engine.model_loaded")
        images = [argument for file in files for argument in ("--image", file)]
        asked = await edge_slm("ask", "--config", box.config, *images, "--detail", "low", "What is in the pictures?")
    assert asked.stdout.splitlines()[0] == answer([each.caption for each in drawn])


async def test_a_box_with_nothing_but_a_vision_model_answers_text(
    tmp_path: Path, broker: Broker, vision_folder: Path
) -> None:
    models = {"text": None, "vision": str(vision_folder)}
    async with Device(broker.port) as device, Box(tmp_path, broker.port, Path(), models=models):
        device.publish("text", {"id": "t1", "prompt": "What is in the picture?"})
        final = await device.final("t1")
    assert (final["text"], final["placement"]["model"]) == (answer([]), "shapes-vision")


async def test_a_picture_that_turns_out_to_be_broken_is_refused_and_the_next_one_is_answered(
    tmp_path: Path, broker: Broker, vision_folder: Path
) -> None:
    drawn = draw(random.Random(3_000_000), (640, 480))
    whole = encoded(drawn.image, "PNG")
    # Its header and its end are right, so that only decoding it tells.
    broken = whole[: len(whole) // 2] + bytes(64) + whole[len(whole) // 2 + 64 :]
    models = {"text": None, "vision": str(vision_folder)}
    async with Device(broker.port) as device, Box(tmp_path, broker.port, Path(), models=models) as box:
        await box.logged("engine.model_loaded")
        worker = box.worker
        for name, data in (("broken", broken), ("whole", whole)):
            image = base64.b64encode(data).decode()
            device.publish("image/porch", {"id": name, "prompt": "What is it?", "image": image})
        refused, answered = await device.final("broken"), await device.final("whole")
        assert box.worker == worker
    assert (refused["state"], refused["error"]["code"]) == ("REJECTED", "bad_request")
    assert answered["text"] == drawn.caption
