"""What the doctor says of a machine, beside the recorded ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.doctor import machine
from agent.hardware.accelerators import Accelerator
from agent.hardware.machine import Machine
from tests.hardware.recorded import lay_out


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    return lay_out("raspberry-pi-5", tmp_path).read()


def test_a_machine_without_an_accelerator_is_told_so(here: Machine) -> None:
    (found,) = machine.accelerators(replace(here, accelerators=()))
    assert (found.mark, found.text) == ("told", "none is seen: the processor computes")


def test_a_device_that_cannot_be_opened_is_no_good_news(here: Machine) -> None:
    closed = Accelerator("nvidia-gpu", "NVIDIA GPU", "/dev/nvidia0", allowed=False)
    device, miss = machine.accelerators(replace(here, accelerators=(closed,)))
    assert (device.mark, miss.mark) == ("told", "told")
    assert "this user may not open /dev/nvidia0" in miss.text


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
    assert found.text.endswith("is not installed: `pip install 'edge-slm-agent[cpu]'`")
