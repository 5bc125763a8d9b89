"""The unit, as systemd reads it and as the agent means it. `scripts/systemd-proof` runs it for real."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.box import END_S
from agent.cli.parser import parser
from agent.layers import load
from agent.settings import Settings

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd/edge-slm.service"
GPU = ROOT / "systemd/edge-slm.service.d/gpu.conf"
EXAMPLE = ROOT / "systemd/box.yaml"

# Of systemd 254, which older ones only warn of.
NEWER = ("RestartSteps", "RestartMaxDelaySec")

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here"
)


def said(file: Path, key: str) -> list[str]:
    """Return what a unit says of a key, in its order."""
    return re.findall(rf"^{key}=(.*)$", file.read_text(), re.MULTILINE)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Put the unit into a folder of its own, with a program that exists."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/edge-slm/current/bin/edge-slm", "/bin/true"))
    return unit


@pytest.fixture
def for_gpu(installed: Path) -> Path:
    """Do the same, with the drop-in for devices."""
    shutil.copytree(GPU.parent, installed.parent / GPU.parent.name)
    return installed


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@needs_systemd_analyze
@pytest.mark.parametrize("unit", ["installed", "for_gpu"])
def test_systemd_has_nothing_to_object_to(unit: str, request: pytest.FixtureRequest) -> None:
    done = analyze("verify", "--man=no", request.getfixturevalue(unit))

    assert [line for line in done.stderr.splitlines() if not any(f"'{key}'" in line for key in NEWER)] == []


@needs_systemd_analyze
@pytest.mark.parametrize("unit", ["installed", "for_gpu"])
def test_its_exposure_is_at_most_2(unit: str, request: pytest.FixtureRequest) -> None:
    done = analyze("security", "--no-pager", "--offline=true", "--threshold=20", request.getfixturevalue(unit))

    assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_a_stop_has_the_time_that_a_shutdown_may_take() -> None:
    (stop_s,) = said(UNIT, "TimeoutStopSec")

    # docs/architecture.md: seven seconds beyond the supervisor's own end.
    assert int(stop_s) >= Settings().drain_s + END_S + 7


def test_it_runs_a_command_that_there_is() -> None:
    (command,) = said(UNIT, "ExecStart")

    args = parser().parse_args(command.split()[1:])

    assert args.command == "run:run"


def test_it_names_the_configuration_that_install_writes() -> None:
    assert "CONFIG=/etc/edge-slm/box.yaml" in said(UNIT, "Environment")


def test_its_state_directory_is_the_default_of_the_settings() -> None:
    assert [f"/var/lib/{name}" for name in said(UNIT, "StateDirectory")] == [str(Settings().state_dir)]


def test_a_credential_that_is_not_there_does_not_fail_the_start() -> None:
    loaded = {each.partition(":")[0] for each in said(UNIT, "LoadCredential")}

    assert loaded == {each.partition(":")[0] for each in said(UNIT, "SetCredential")}


@pytest.mark.parametrize("file", [*sorted((ROOT / "configs").rglob("*.yaml")), EXAMPLE], ids=lambda file: file.name)
def test_the_examples_name_credentials_that_it_loads(file: Path) -> None:
    named = set(re.findall(r"/run/credentials/edge-slm\.service/([\w-]+)", file.read_text()))

    assert named <= {each.partition(":")[0] for each in said(UNIT, "LoadCredential")}


def test_the_configuration_that_install_writes_is_right() -> None:
    assert load([EXAMPLE]).settings.models.text == Settings().models.text


def test_so_is_what_it_offers_in_comments(tmp_path: Path) -> None:
    offered = tmp_path / "box.yaml"
    offered.write_text(re.sub(r"^( *)# (?=\w+: )", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE))

    assert load([offered]).settings.mqtt.username == "box1"
