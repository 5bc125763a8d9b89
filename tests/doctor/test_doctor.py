"""``edge-slm doctor`` on this machine, with the real broker and a real model, and with what may be wrong."""

import argparse
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.cli import doctor as cli
from agent.cli.doctor import SIGNS
from agent.doctor.examination import examine
from agent.doctor.finding import Finding
from tests.boxes import EDGE_SLM
from tests.brokers import Broker


def _doctor(*arguments: object) -> subprocess.CompletedProcess[str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_SLM_")}
    command = [str(EDGE_SLM), "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=15, env=bare)


def _found(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {each["check"]: each for each in json.loads(done.stdout)["findings"]}


@pytest.fixture
def configuration(broker: Broker, vision_folder: Path, tmp_path: Path) -> Path:
    file = tmp_path / "box.yaml"
    settings = {
        "device": {"id": "box1"},
        "mqtt": {"port": broker.port},
        "state_dir": str(tmp_path / "state"),
        "models": {"text": None, "vision": str(vision_folder)},
    }
    file.write_text(json.dumps(settings))
    return file


def test_a_box_that_can_serve_is_told_line_by_line(configuration: Path, broker: Broker) -> None:
    done = _doctor("--config", configuration)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"✓ configuration {configuration}, for box1, is right"
    assert any(line.startswith("✓ provider      cpu: the processor, ") for line in lines)
    assert any(line.startswith("✓ vision model  shapes-vision runs on cpu: the processor, ") for line in lines)
    assert f"✓ broker        127.0.0.1:{broker.port} answers MQTT 5" in done.stdout
    assert {line[0] for line in lines} <= {*SIGNS.values()}


def test_a_wrong_configuration_is_told_and_the_rest_is_looked_at_by_the_defaults(tmp_path: Path) -> None:
    wrong = tmp_path / "box.yaml"
    wrong.write_text("mqtt: {hots: 10.0.0.5}\n")
    done = _doctor("--config", wrong, "--json")
    found = _found(done)
    assert done.returncode == 2
    assert json.loads(done.stdout)["serves"] is False
    assert f"{wrong}:1" in found["configuration"]["text"]
    assert "host" in found["configuration"]["text"]
    assert found["runtime"]["mark"] == "well"


def test_without_a_file_nobody_is_told_that_his_configuration_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "checks", lambda *_: {})
    asked = argparse.Namespace(config=[], set=[f"state_dir={tmp_path}", "device.id=box1"], json=True)
    assert cli.doctor(asked) == 0
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert found["mark"] == "told"
    assert found["text"] == "no file was named, so that these are the defaults, for box1: name yours by --config"
    assert found["facts"] == {"device": "box1"}


def test_each_thing_that_stops_the_box_is_told_beside_the_others(configuration: Path, broker: Broker) -> None:
    broker.kill()
    broken = ("models.vision=/absent", "state_dir=/proc/edge-slm", "engine.provider=cuda", "cloud.enabled=true")
    more = ("cloud.text_model=m", "cloud.api_key_file=/absent")
    done = _doctor("--config", configuration, "--json", *(f"--set={each}" for each in (*broken, *more)))
    found = _found(done)
    assert done.returncode == 1
    assert {name for name, each in found.items() if each["stops"]} == {"models", "disk", "broker", "cloud"}
    assert (found["cuda"]["mark"], found["cuda"]["stops"]) == ("wrong", False)


def test_a_check_that_hangs_or_breaks_stops_no_other() -> None:
    never = threading.Event()

    def hangs() -> list[Finding]:
        never.wait()
        return []

    def breaks() -> list[Finding]:
        raise RuntimeError("oh")

    well = Finding("well", "well", "it is")
    begun = time.monotonic()
    asked = {"disk": hangs, "broker": breaks, "clock": breaks, "well": lambda: [well]}
    found = [*examine(asked, patience_s=0.2)]
    never.set()
    assert time.monotonic() - begun < 1
    told = [(each.check, each.mark, each.stops) for each in found]
    assert told == [
        ("disk", "wrong", True),
        ("broker", "wrong", True),
        ("clock", "wrong", False),
        ("well", "well", False),
    ]
    assert "did not end within 0.2 s" in found[0].text
    assert "RuntimeError('oh')" in found[1].text
