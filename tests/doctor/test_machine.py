"""What the doctor says of a machine, beside the recorded ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.doctor import machine
from agent.hardware.accelerators import Accelerator
from agent.hardware.machine import Machine
from agent.hardware.packages import Package, remedy
from tests.hardware.recorded import lay_out


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    return lay_out("raspberry-pi-5", tmp_path).read()


def test_a_machine_without_an_accelerator_is_told_so(here: Machine) -> None:
    (found,) = machine.accelerators(replace(here, accelerators=()))
    assert (found.mark, found.text) == ("told", "none is seen: the processor computes")


@pytest.mark.parametrize(("package", "mark"), [("onnxruntime-ep-openvino", "wrong"), ("onnxruntime", "told")])
def test_a_device_that_cannot_be_opened_is_wrong_where_its_package_was_installed(
    here: Machine, package: str, mark: str
) -> None:
    closed = Accelerator("intel-gpu", "Intel GPU", "/dev/dri/renderD128", allowed=False, group="render")
    closed_here = replace(here, accelerators=(closed,), packages={package: Package("1.8.1")})
    device, miss = machine.accelerators(closed_here)
    assert (device.mark, miss.mark, miss.stops) == ("told", mark, False)
    assert miss.text == (
        "this user may not open /dev/dri/renderD128 (Intel GPU): `sudo usermod -aG render USER`, and log in anew; "
        "a service takes the drop-in gpu.conf (docs/systemd.md)"
    )


def test_a_program_reads_cores_and_devices_without_a_sentence(here: Machine) -> None:
    (processor,) = machine.processor(here)
    assert processor.facts == {"cores": 4, "fast_cores": 4, "threads": 4}
    assert next(machine.accelerators(here)).facts == {"kind": "gpu", "node": "/dev/dri/renderD128"}


@pytest.mark.parametrize(
    ("glibc", "why"),
    [
        (None, "this system has another C library than glibc: install another system, such as Debian 12"),
        ((2, 27), "it needs glibc 2.28, and this system has 2.27: install a newer system"),
    ],
)
def test_a_system_without_wheels_is_told_why(here: Machine, glibc: tuple[int, int] | None, why: str) -> None:
    bare = replace(here, packages={}, interpreter=replace(here.interpreter, glibc=glibc))
    (found,) = machine.packages(bare)
    assert found.stops
    assert found.text == f"onnxruntime-genai is not installed, and cannot be: {why}"


def test_what_somebody_built_himself_counts_on_any_system(here: Machine) -> None:
    (found,) = machine.packages(replace(here, interpreter=replace(here.interpreter, glibc=None)))
    assert found.mark == "well"


def test_an_engine_that_is_missing_where_it_could_be_is_told_with_the_remedy(here: Machine) -> None:
    (found,) = machine.packages(replace(here, packages={}))
    assert found.text == f"onnxruntime-genai, which runs the models, is not installed: {remedy('cpu')}"
