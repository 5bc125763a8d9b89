"""What the doctor says of machines that are not here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli.doctor import SIGNS
from agent.doctor import box, machine, providers
from agent.doctor.finding import Finding
from agent.hardware.choice import choose
from agent.kernel_files import available_bytes
from agent.settings import Engine
from tests.hardware.recorded import NAMES, Recorded, lay_out


@pytest.fixture(params=NAMES)
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> Recorded:
    return lay_out(request.param, tmp_path)


def _findings(recorded: Recorded) -> Iterator[Finding]:
    here = recorded.read()
    yield from machine.board(here)
    yield from machine.processor(here)
    yield from machine.memory(here, available_bytes(recorded.root))
    yield from machine.accelerators(here)
    yield from machine.packages(here)
    if "cpu" in recorded.probes:
        yield from providers.runtime(recorded.probes["cpu"])
    for each in providers.wanted(here):
        yield from providers.provider(each, recorded.probes[each.name], here.packages)
    asked = [(each, recorded.probes[each.name]) for each in providers.wanted(here)]
    absent = providers.absent(recorded.probes.get("cpu"), asked, here.packages)
    yield from providers.used(Engine(), here, absent)
    yield from box.heat(recorded.root)


def test_the_doctor_is_right_about_a_recorded_machine(recorded: Recorded) -> None:
    said = [f"{SIGNS[each.mark]} {each.check} {each.text}" for each in _findings(recorded)]
    assert said == recorded.says


def test_the_providers_to_try_are_those_that_the_machine_has_and_the_cpu_at_last(recorded: Recorded) -> None:
    assert [each.provider for each in choose("auto", {}, recorded.read())] == recorded.chooses
