"""The scripts around the service, as far as they can be tried without one; the rest is `scripts/systemd-proof`'s."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.systemd.proof.releases import BROKEN

ROOT = Path(__file__).parents[2]
SCRIPTS = [ROOT / "scripts" / name for name in ("install", "uninstall", "systemd-proof")] + [ROOT / "systemd/edge-slm"]

Run = Callable[..., list[str]]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck here")
def test_shellcheck_has_nothing_to_object_to() -> None:
    done = subprocess.run(["shellcheck", "-x", *SCRIPTS], capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.stdout == ""


@pytest.mark.parametrize("script", ["install", "uninstall"])
def test_an_unknown_option_is_bad_usage(script: str) -> None:
    done = subprocess.run([ROOT / "scripts" / script, "--bogus"], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "usage: scripts/" in done.stderr


@pytest.mark.parametrize("edit", BROKEN.values(), ids=BROKEN)
def test_the_proof_still_finds_what_it_breaks_in_a_release(edit: tuple[str, str, str]) -> None:
    file, old, _new = edit

    assert old in (ROOT / file).read_text()


@pytest.fixture
def command(tmp_path: Path) -> Run:
    """Return a function that runs the installed command, and returns what the program behind it was given."""
    stubs = {
        "version/bin/edge-slm": 'printf "%s\\n" "$@"',
        "stubs/systemctl": "echo 'CONFIG=/etc/edge-slm/fleet PYTHONFAULTHANDLER=1'",
    }
    for name, line in stubs.items():
        stub = tmp_path / name
        stub.parent.mkdir(parents=True)
        stub.write_text(f"#!/bin/sh\n{line}\n")
        stub.chmod(0o755)
    shutil.copytree(ROOT / "systemd", tmp_path / "version/systemd")
    link = tmp_path / "edge-slm"
    link.symlink_to("version/systemd/edge-slm")

    def run(*arguments: str) -> list[str]:
        path = f"{tmp_path}/stubs:{os.environ['PATH']}"
        done = subprocess.run(
            [link, *arguments], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
        )
        return done.stdout.splitlines()

    return run


FLEET = ["--config", "/etc/edge-slm/fleet"]


@pytest.mark.parametrize(
    ("typed", "added"),
    [
        (["ask", "Hi, you"], FLEET),
        (["config", "check"], FLEET),
        (["config", "check", "--json"], FLEET),
        (["config", "check", "--config", "mine.yaml"], []),
        (["config", "check", "configs/"], []),
        (["config", "schema"], []),
        (["fleet", "status", "configs/"], []),
        (["--version"], []),
    ],
    ids=str,
)
def test_the_installed_command_takes_the_services_configuration(
    typed: list[str], added: list[str], command: Run
) -> None:
    assert command(*typed) == typed + added
