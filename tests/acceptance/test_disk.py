"""The whole box on a small real disk: it fills while jobs run, is full or read-only at the start, and gets room."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.boxes import Box
from tests.brokers import Broker
from tests.devices import Device
from tests.filesystems import full, read_only, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 40 << 20) as mounted:
        yield mounted


@pytest.fixture
def box(tmp_path: Path, disk: Path, broker: Broker, model_folder: Path) -> Box:
    return Box(tmp_path, broker.port, model_folder, state_dir=str(disk))


def story(job_id: str) -> dict[str, Any]:
    return {"id": job_id, "prompt": f"Tell me story {job_id}.", "max_tokens": 40}


async def test_jobs_that_run_while_the_disk_fills_end_and_new_ones_are_refused(
    box: Box, broker: Broker, disk: Path
) -> None:
    async with Device(broker.port) as device, box:
        under_way = [f"j{number}" for number in range(12)]
        for job_id in under_way:
            device.publish("text", story(job_id))
        await device.until(lambda: device.of("j0", "chunk") != [])
        await device.state("j11", "accepted")
        with full(disk):
            # Requests of the size of a picture: the WAL has some room of its own for small ones.
            for number in range(60):
                device.publish("text", {"id": f"late{number}", "prompt": "x" * 250_000})
            errors = [(await device.final(f"late{number}"))["error"] for number in range(60)]
            refused = [error for error in errors if error["code"] == "internal"]
            assert {(error["retryable"], error["retry_after_s"]) for error in refused} == {(True, 30.0)}
            assert "no space left" in refused[-1]["message"]
            assert {(await device.final(job_id))["state"] for job_id in under_way} == {"SUCCEEDED"}
        assert [len(device.of(job_id, "final")) for job_id in under_way] == [1] * 12


async def test_a_box_takes_requests_on_again_once_there_is_room(box: Box, broker: Broker, disk: Path) -> None:
    async with Device(broker.port) as device, box:
        with full(disk):
            for number in range(60):
                device.publish("text", {"id": f"late{number}", "prompt": "x" * 250_000})
            await device.final("late59")
        device.publish("text", story("after"))
        assert (await device.final("after"))["state"] == "SUCCEEDED"


async def test_a_box_killed_on_a_full_disk_starts_on_it_and_answers_what_it_was_asked(
    box: Box, broker: Broker, disk: Path
) -> None:
    async with Device(broker.port, keep=True) as device, box:
        for number in range(6):
            device.publish("text", story(f"j{number}"))
        await device.state("j5", "accepted")
        await box.kill()
        with full(disk):
            box.start()
            assert {(await device.final(f"j{number}"))["state"] for number in range(6)} == {"SUCCEEDED"}


async def test_a_box_that_waits_for_its_disk_ends_at_a_signal(box: Box, disk: Path) -> None:
    with read_only(disk):
        box.start()
        await box.logged("spool.sick")
        assert await box.stop() == 0
