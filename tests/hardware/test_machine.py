"""A machine as its files tell; the recorded ones are in tests/doctor/test_recorded.py."""

import os
import platform
import time
from pathlib import Path

import pytest

from agent.hardware.accelerators import Accelerator
from agent.hardware.machine import Board, Interpreter, read
from agent.hardware.processor import numbers
from tests.hardware.recorded import lay_out

_PYTHON = Interpreter("x86_64", 64, (2, 36))


def _write(root: Path, **files: str) -> None:
    for path, text in files.items():
        file = root / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_an_empty_tree_is_a_machine_of_which_nothing_is_known(tmp_path: Path) -> None:
    here = read(tmp_path, _PYTHON, {})
    assert (here.board, here.processor.model, here.processor.cores) == (Board(), "unknown", 1)
    assert here.accelerators == ()


def test_this_machine_is_read_in_a_moment() -> None:
    read()  # the first reads importlib.metadata's folders
    begun = time.process_time()
    here = read()
    assert time.process_time() - begun < 0.02
    assert here.processor.threads == len(os.sched_getaffinity(0))
    assert (here.interpreter.architecture, here.interpreter.bits) == (platform.machine(), 64)
    assert "onnxruntime-genai" in here.packages


def test_cores_that_this_process_may_not_run_on_do_not_count(tmp_path: Path) -> None:
    recorded = lay_out("amd-ryzen-ai", tmp_path)
    (tmp_path / "proc/self/status").write_text("Cpus_allowed_list:\t2-5\n")
    here = recorded.read().processor
    assert (here.cores, here.threads) == (2, 4)


@pytest.mark.parametrize(
    ("ranges", "found"),
    [("0-3,8\n", {0, 1, 2, 3, 8}), ("5", {5}), ("", set()), ("\n", set()), ("none", set()), ("2-", {2})],
)
def test_the_kernels_sets_of_numbers_are_read(ranges: str, found: set[int]) -> None:
    assert numbers(ranges) == found


@pytest.mark.parametrize(
    ("line", "l4t", "jetpack"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3", 6),
        ("# R35 (release), REVISION: 6.0, GCID: 37391689, BOARD: t186ref, EABI: aarch64", "35.6.0", 5),
        ("# R39 (release), REVISION: 2.0, GCID: 0, BOARD: generic, EABI: aarch64", "39.2.0", 7),
        ("# R99 (release), REVISION: 1.0", "99.1.0", None),
        ("# R36 (release)", None, None),
        ("", None, None),
    ],
)
def test_a_jetsons_release_is_read(tmp_path: Path, line: str, l4t: str | None, jetpack: int | None) -> None:
    _write(tmp_path, etc__nv_tegra_release=line)
    board = read(tmp_path, _PYTHON, {}).board
    assert (board.l4t, board.jetpack) == (l4t, jetpack)


@pytest.mark.parametrize("node", ["dev/nvgpu/igpu0/ctrl", "dev/nvhost-ctrl-gpu", "dev/nvmap"])
def test_a_jetsons_gpu_is_known_by_the_file_that_its_release_makes(tmp_path: Path, node: str) -> None:
    _write(tmp_path, **{"proc/device-tree/compatible": "nvidia,tegra194\0", node: ""})
    (found,) = read(tmp_path, _PYTHON, {}).accelerators
    assert (found.kind, found.node) == ("jetson-gpu", f"/{node}")


def test_a_jetson_with_a_card_in_its_slot_has_both(tmp_path: Path) -> None:
    card = "sys/class/drm/renderD128/device/uevent"
    _write(tmp_path, **{"proc/device-tree/compatible": "nvidia,tegra234\0", card: "DRIVER=amdgpu\nPCI_ID=1002:73DF\n"})
    assert [each.kind for each in read(tmp_path, _PYTHON, {}).accelerators] == ["jetson-gpu", "amd-gpu"]


def test_a_device_is_told_with_the_group_that_may_open_it(tmp_path: Path) -> None:
    _write(tmp_path, dev__hailo0="")
    assert read(tmp_path, _PYTHON, {}).accelerators[0].group == (tmp_path / "dev/hailo0").group()


def test_an_nvidia_card_without_nvidias_driver_is_told_as_such(tmp_path: Path) -> None:
    card = "sys__bus__pci__devices__0000:01:00.0"
    _write(tmp_path, **{f"{card}__vendor": "0x10de\n", f"{card}__class": "0x030000\n"})
    (found,) = read(tmp_path, _PYTHON, {}).accelerators
    assert found == Accelerator("nvidia-gpu", "NVIDIA GPU without NVIDIA's driver", None, allowed=False)


def test_an_nvidia_network_card_is_no_accelerator(tmp_path: Path) -> None:
    card = "sys__bus__pci__devices__0000:01:00.0"
    _write(tmp_path, **{f"{card}__vendor": "0x10de\n", f"{card}__class": "0x020000\n"})
    assert read(tmp_path, _PYTHON, {}).accelerators == ()


def test_an_accelerator_that_no_provider_drives_is_named(tmp_path: Path) -> None:
    _write(tmp_path, dev__hailo0="")
    (found,) = read(tmp_path, _PYTHON, {}).accelerators
    assert (found.kind, found.name, found.node) == ("unused", "Hailo NPU", "/dev/hailo0")


def test_a_device_that_this_user_may_not_open_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may open everything
    recorded = lay_out("qualcomm-rb3-gen-2", tmp_path)
    assert [each.allowed for each in recorded.read().accelerators] == [False, False]


@pytest.mark.parametrize("part", ["0x023", "nonsense"])
def test_an_arm_core_that_is_not_known_is_told_by_its_numbers(tmp_path: Path, part: str) -> None:
    _write(tmp_path, proc__cpuinfo=f"processor : 0\nCPU implementer : 0x61\nCPU part : {part}\n")
    assert read(tmp_path, _PYTHON, {}).processor.model == f"ARM 0x61/{part}"


def test_only_what_every_core_has_is_a_feature(tmp_path: Path) -> None:
    core = "processor : {}\nFeatures : asimd {}\n"
    _write(tmp_path, proc__cpuinfo="\n".join([core.format(0, "asimddp"), core.format(1, "")]))
    assert read(tmp_path, _PYTHON, {}).processor.features == ("asimd",)


@pytest.mark.parametrize(
    ("files", "name", "kind"),
    [
        ({"sys__class__drm__renderD129__device__uevent": "DRIVER=RKNPU\n"}, "Rockchip NPU", "unused"),
        ({"sys__class__drm__renderD128__device__uevent": "DRIVER=vc4\n"}, "GPU of the driver vc4", "gpu"),
        ({"sys__class__drm__renderD128__device__uevent": ""}, "GPU of the driver unknown", "gpu"),
        (
            {"sys__class__accel__accel0__device__uevent": "DRIVER=habanalabs\n"},
            "NPU of the driver habanalabs",
            "unused",
        ),
    ],
)
def test_a_device_is_known_by_its_driver(tmp_path: Path, files: dict[str, str], name: str, kind: str) -> None:
    _write(tmp_path, **files)
    (found,) = read(tmp_path, _PYTHON, {}).accelerators
    assert (found.name, found.kind, found.node) == (name, kind, None)


def test_an_nvidia_cards_render_node_is_not_told_twice(tmp_path: Path) -> None:
    assert len(lay_out("x86-nvidia", tmp_path).read().accelerators) == 1
