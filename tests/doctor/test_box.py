"""Heat, disk and clock, as the doctor sees them."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.doctor.box import clock, disk, heat, service
from agent.hardware.accelerators import Accelerator
from agent.hardware.machine import read
from agent.hardware.packages import Package
from agent.settings import Engine, Settings, Spool
from tests.filesystems import full, small_disk

_NOW = 1_795_000_000.0  # November 2026


def _zone(root: Path, millidegrees: int) -> None:
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text(f"{millidegrees}\n")


def test_a_cool_box_is_well(tmp_path: Path) -> None:
    _zone(tmp_path, 48_300)
    (found,) = heat(tmp_path)
    assert (found.mark, found.text) == ("well", "48 °C, nothing tells whether it is slowed down")


def test_a_box_as_hot_as_counts_for_saturated_is_told(tmp_path: Path) -> None:
    _zone(tmp_path, 85_000)
    (found,) = heat(tmp_path, 85)
    assert (found.mark, found.stops) == ("wrong", False)


def test_a_folder_that_can_be_written_has_room(tmp_path: Path) -> None:
    (found,) = disk(Settings(state_dir=tmp_path))
    assert found.mark == "well"
    assert [*tmp_path.iterdir()] == []


def test_a_state_dir_that_is_not_there_yet_is_judged_by_the_folder_above(tmp_path: Path) -> None:
    (found,) = disk(Settings(state_dir=tmp_path / "not" / "yet"))
    assert found.mark == "well"
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_cannot_be_written_stops_the_box() -> None:
    (found,) = disk(Settings(state_dir=Path("/proc/edge-slm")))
    assert found.stops
    assert found.text.startswith("/proc/edge-slm cannot be made by this user")


def test_a_full_disk_stops_the_box(tmp_path: Path) -> None:
    with small_disk(tmp_path, 1 << 20) as folder, full(folder):
        (found,) = disk(Settings(state_dir=folder))
    assert found.stops
    assert found.text.endswith("(No space left on device): make room")


def test_less_room_than_the_spool_may_take_is_told(tmp_path: Path) -> None:
    (found,) = disk(Settings(state_dir=tmp_path, spool=Spool(max_bytes=1 << 60)))
    assert found.text.endswith("make room, or lower spool.max_bytes")
    assert not found.stops


@pytest.mark.parametrize(
    ("now", "unsynchronised", "mark"),
    [(_NOW, False, "well"), (_NOW, True, "wrong"), (_NOW, None, "told"), (86_400.0, False, "wrong")],
)
def test_a_clock_is_judged_by_its_year_and_by_what_the_kernel_says(
    tmp_path: Path, now: float, unsynchronised: bool | None, mark: str
) -> None:
    (found,) = clock(tmp_path, now, lambda: unsynchronised)
    assert (found.mark, found.stops) == (mark, False)


def test_systemds_word_for_a_synchronised_clock_counts(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    (tmp_path / "run/systemd/timesync/synchronized").touch()
    (found,) = clock(tmp_path, _NOW, lambda: True)
    assert found.mark == "well"


_CARD = Accelerator("nvidia-gpu", "NVIDIA GPU", "/dev/nvidia0", allowed=True)


@pytest.mark.parametrize(
    ("drop_in", "told"),
    [(None, True), ("[Service]\nPrivateDevices=yes\n", True), ("[Service]\nPrivateDevices=no\n", False)],
)
def test_a_service_that_may_not_open_the_card_is_told(tmp_path: Path, drop_in: str | None, told: bool) -> None:
    unit = tmp_path / "etc/systemd/system/edge-slm.service"
    unit.with_suffix(".service.d").mkdir(parents=True)
    unit.touch()
    if drop_in is not None:
        (unit.with_suffix(".service.d") / "any.conf").write_text(drop_in)
    here = replace(read(), accelerators=(_CARD,), packages={"onnxruntime-genai-cuda": Package("0.18.0")})
    found = [*service(Engine(), here, tmp_path)]
    assert [each.mark for each in found] == (["wrong"] if told else [])
    assert [*service(Engine(), replace(here, accelerators=()), tmp_path)] == []
    assert [*service(Engine(), here, tmp_path / "etc")] == []
