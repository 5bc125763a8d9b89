"""Which provider is to be used."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent.hardware.accelerators import Accelerator, Kind
from agent.hardware.choice import PROVIDERS, choose, extra, missed
from agent.hardware.machine import Machine
from agent.hardware.packages import Package
from tests.hardware.recorded import lay_out

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def bare(tmp_path: Path) -> Machine:
    """Make a machine that has nothing but its processor."""
    return replace(lay_out("raspberry-pi-5", tmp_path).read(), accelerators=(), packages={})


def _with(machine: Machine, *kinds: Kind, packages: tuple[str, ...] = (), allowed: bool = True) -> Machine:
    here = tuple(Accelerator(kind, f"the {kind}", "/dev/it", allowed) for kind in kinds)
    return replace(machine, accelerators=here, packages={name: Package("1.0") for name in packages})


def _chosen(machine: Machine, wanted: str = "auto") -> list[str]:
    return [choice.provider for choice in choose(wanted, {}, machine)]


def test_the_processor_alone_is_used_where_there_is_nothing_else(bare: Machine) -> None:
    (choice,) = choose("auto", {}, bare)
    assert choice.provider == "cpu"
    assert choice.why == "the processor, Cortex-A76, has 4 cores"


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.name)
def test_auto_takes_each_provider_whose_device_and_package_are_here(bare: Machine, provider: object) -> None:
    each = next(known for known in PROVIDERS if known is provider)
    here = _with(bare, each.kinds[0], packages=(each.packages[-1],))
    assert _chosen(here) == [each.name, "cpu"]


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda each: each.name)
def test_auto_takes_no_provider_without_its_package_or_its_device(bare: Machine, provider: object) -> None:
    each = next(known for known in PROVIDERS if known is provider)
    assert _chosen(_with(bare, each.kinds[0])) == ["cpu"]
    assert _chosen(_with(bare, packages=each.packages)) == ["cpu"]
    assert _chosen(_with(bare, each.kinds[0], packages=each.packages, allowed=False)) == ["cpu"]


def test_auto_prefers_what_is_made_for_the_device(bare: Machine) -> None:
    packages = ("onnxruntime-genai-cuda", "onnxruntime-ep-webgpu", "onnxruntime-ep-nv-tensorrt-rtx-cu13")
    here = _with(bare, "intel-gpu", "nvidia-gpu", packages=(*packages, "onnxruntime-ep-openvino"))
    assert _chosen(here) == ["cuda", "NvTensorRtRtx", "OpenVINO", "WebGPU", "cpu"]


def test_auto_leaves_the_gpu_of_an_arm_chip_alone(bare: Machine) -> None:
    assert _chosen(_with(bare, "gpu", packages=("onnxruntime-ep-webgpu",))) == ["cpu"]


def test_openvino_is_told_the_gpu_since_it_would_take_the_processor(bare: Machine) -> None:
    choice, _ = choose("auto", {}, _with(bare, "intel-gpu", packages=("onnxruntime-ep-openvino",)))
    assert choice.options == {"device_type": "GPU"}
    assert choice.library == "onnxruntime_ep_openvino"


def test_a_named_provider_is_tried_first_whatever_the_files_tell(bare: Machine) -> None:
    first, last = choose("QNN", {"htp_performance_mode": "burst"}, bare)
    assert (first.provider, first.library, first.options) == (
        "QNN",
        "onnxruntime_qnn",
        {"htp_performance_mode": "burst"},
    )
    assert last.provider == "cpu"


def test_the_cpu_by_name_is_all_that_is_tried(bare: Machine) -> None:
    assert _chosen(_with(bare, "nvidia-gpu", packages=("onnxruntime-genai-cuda",)), "cpu") == ["cpu"]


@pytest.mark.parametrize(
    ("name", "own"), [("cuda", True), ("QNN", True), ("VitisAI", True), ("OpenVINO", False), ("WebGPU", False)]
)
def test_a_choice_says_whether_it_runs_models_of_its_own_alone(bare: Machine, name: str, own: bool) -> None:
    assert choose(name, {}, bare)[0].own_model is own


def test_what_could_be_used_is_missed_with_what_to_type(bare: Machine) -> None:
    (miss,) = missed(_with(bare, "nvidia-gpu", packages=("onnxruntime-genai", "onnxruntime")))
    assert miss.why == (
        "the nvidia-gpu could be used: `sudo scripts/install --extra cuda`; or in a new virtual environment, "
        "from a wheel of this repository, `pip install 'WHEEL[cuda]'`"
    )


@pytest.mark.parametrize("group", [None, "root"])
def test_a_device_that_belongs_to_no_group_of_users_is_missed_with_the_remedy(bare: Machine, group: str | None) -> None:
    closed = Accelerator("intel-gpu", "Intel GPU", "/dev/it", allowed=False, group=group)
    (miss,) = missed(replace(bare, accelerators=(closed,)))
    assert "this user may not open /dev/it (Intel GPU): give the file a group by a udev rule" in miss.why


def test_a_device_without_a_file_wants_its_driver(bare: Machine) -> None:
    here = replace(bare, accelerators=(Accelerator("nvidia-gpu", "NVIDIA GPU", None, allowed=False),))
    assert missed(here)[0].why == "NVIDIA GPU has no device file: install its driver"


def test_nothing_is_missed_where_a_provider_of_the_device_is_installed(bare: Machine) -> None:
    assert missed(_with(bare, "nvidia-gpu", packages=("onnxruntime-ep-webgpu",))) == ()


@pytest.mark.parametrize(
    ("kind", "wanted"), [("nvidia-gpu", "cuda"), ("jetson-gpu", "cpu"), ("intel-gpu", "cpu"), ("qualcomm-npu", "cpu")]
)
def test_only_nvidias_cards_get_another_extra_than_the_processors(bare: Machine, kind: Kind, wanted: str) -> None:
    assert extra(_with(bare, kind)) == wanted


def test_the_extra_can_be_told_before_anything_is_installed() -> None:
    program = "from agent.hardware.choice import extra; from agent.hardware.machine import read; print(extra(read()))"
    alone = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(_ROOT)!r}); {program}"]
    assert subprocess.run(alone, check=True, capture_output=True, text=True).stdout in ("cpu\n", "cuda\n")
