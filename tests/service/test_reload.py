"""SIGHUP, on everything real: the box changes its configuration, or stays as it was, and no job is lost over it."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_survival import attempts_are_whole, distinct_finals, story
from tests.boxes import Box
from tests.brokers import Broker
from tests.devices import Device

MakeBox = Callable[..., Box]


@pytest.fixture
def box(tmp_path: Path, broker: Broker, model_folder: Path) -> MakeBox:
    """Make a box, not yet started."""

    def make(**settings: Any) -> Box:
        return Box(tmp_path, broker.port, model_folder, **settings)

    return make


@pytest.fixture
async def device(broker: Broker) -> AsyncIterator[Device]:
    async with Device(broker.port, keep=True) as found:
        yield found


@pytest.fixture
def other_model(tmp_path: Path, model_folder: Path) -> Path:
    """Make a second model, which is the first one under another name."""
    folder = tmp_path / "other-model"
    folder.mkdir()
    for each in model_folder.iterdir():
        (folder / each.name).symlink_to(each)
    return folder


@pytest.fixture
def broken_model(tmp_path: Path, model_folder: Path) -> Path:
    """Make a model that looks whole, and whose graph makes no sense."""
    folder = tmp_path / "broken-model"
    shutil.copytree(model_folder, folder, ignore=lambda _, names: [name for name in names if "onnx" in name])
    (folder / "model.onnx").write_bytes(b"no graph")
    return folder


async def test_fifty_jobs_under_way_are_each_answered_once(box: MakeBox, device: Device) -> None:
    count = 50
    async with box(drain_s=0.1, queue={"max_jobs": 100}) as running:
        for number in range(count):
            # A prompt of its own keeps the model's default one away, which is longer than all the rest.
            messages = [{"role": "system", "content": "."}, {"role": "user", "content": "Hi"}]
            device.publish("text", {"id": f"j{number}", "messages": messages, "max_tokens": 2})
        for done in (1, 20):
            await device.until(lambda done=done: sum(map(bool, distinct_finals(device, count))) >= done)  # type: ignore[misc]
            running.configure(queue={"max_jobs": 100 + done})
            running.reload()
        await running.logged("configuration.applied", 2)
        for number in range(count):
            await device.final(f"j{number}")
    assert [len(finals) for finals in distinct_finals(device, count)] == [1] * count
    assert {(await device.final(f"j{number}"))["state"] for number in range(count)} == {"SUCCEEDED"}
    assert all(attempts_are_whole(device, f"j{number}") for number in range(count))


async def test_a_mistake_in_the_file_is_told_with_its_line_and_the_box_goes_on(box: MakeBox) -> None:
    async with box() as running:
        running.config.write_text("mqtt:\n  prot: 1883\n")
        running.reload()
        refused = await running.logged("configuration.refused")
    assert "box.yaml:2" in refused["detail"]
    assert refused["advice"] == "mend it and reload again; the box goes on as it was"
    assert "service.draining" not in {each["event"] for each in running.events}


async def test_a_model_that_is_not_installed_is_refused_while_the_box_goes_on(box: MakeBox) -> None:
    async with box() as running:
        running.configure(models={"text": "phi-3.5-mini"})
        running.reload()
        refused = await running.logged("configuration.refused")
    assert "edge-slm models pull phi-3.5-mini" in refused["detail"]
    assert "service.draining" not in {each["event"] for each in running.events}


async def test_a_model_that_cannot_be_loaded_leaves_the_box_with_the_one_before(
    box: MakeBox, device: Device, broken_model: Path
) -> None:
    async with box() as running:
        await running.logged("engine.model_loaded")
        running.configure(models={"text": str(broken_model)})
        running.reload()
        device.publish("text", story(0, max_tokens=2))
        rolled_back = await running.logged("configuration.rolled_back")
        final = await device.final("j0")
    assert "model broken-model cannot be loaded" in rolled_back["detail"]
    assert (final["state"], final["placement"]["model"]) == ("SUCCEEDED", "smollm2-135m")


async def test_another_model_answers_what_waited_for_the_one_before(
    box: MakeBox, device: Device, other_model: Path
) -> None:
    async with box(engine={"slots": 1}, drain_s=60) as running:
        device.publish("text", story(0, max_tokens=20))
        device.publish("text", story(1, max_tokens=2))
        await device.until(lambda: device.of("j0", "chunk") != [])
        running.configure(models={"text": str(other_model)})
        running.reload()
        first, second = await device.final("j0"), await device.final("j1")
    assert (first["placement"]["model"], first["attempt"]) == ("smollm2-135m", 1)
    assert second["placement"]["model"] == "other-model"


async def test_a_box_killed_in_the_middle_of_a_change_answers_at_its_next_start(
    box: MakeBox, device: Device, other_model: Path
) -> None:
    async with box(drain_s=0.1) as running:
        device.publish("text", story(0, max_tokens=10))
        await device.until(lambda: device.of("j0", "chunk") != [])
        running.configure(models={"text": str(other_model)})
        running.reload()
        await running.logged("service.started", 2)
        await running.kill()
        running.start()
        assert (await device.final("j0"))["state"] == "SUCCEEDED"
    assert len(distinct_finals(device, 1)[0]) == 1
    assert attempts_are_whole(device, "j0")
