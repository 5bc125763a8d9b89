"""The demo as a user runs it: real processes, a real broker, the real model."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.brokers import Broker

pytestmark = pytest.mark.timeout(300)  # the first run of all pulls the model

_DEMO = (Path(sys.executable).with_name("edge-slm"), "demo")
_DEMO_WITHOUT_MOSQUITTO = (
    sys.executable,
    "-c",
    "from agent.cli import main; from agent.demo import brokers; brokers.find_mosquitto = lambda: None; main()",
    "demo",
)


def _left(folder: Path) -> list[psutil.Process]:
    """Return the processes that run in a folder, where the demo's children all are."""
    return [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(folder)]


def _once(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, "--once"], cwd=folder, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Staying:
    """A demo that has answered and stays up, and the lines that it offers for another terminal."""

    process: subprocess.Popen[str]
    lines: list[str]

    def line(self, words: str) -> str:
        return next(line.strip() for line in self.lines if words in line)


@pytest.fixture(params=[_DEMO])
def staying(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Staying]:
    """Start a demo in a process group of its own, as a terminal does."""
    with subprocess.Popen([*request.param], cwd=tmp_path, stdout=subprocess.PIPE, text=True, process_group=0) as demo:
        assert demo.stdout is not None
        lines = list(itertools.takewhile(lambda line: not line.startswith("Ctrl-C"), demo.stdout))
        yield Staying(demo, lines)
        demo.terminate()


@pytest.mark.parametrize(("broker", "command"), [("mosquitto", _DEMO), ("iotcore", _DEMO_WITHOUT_MOSQUITTO)])
def test_once_prints_an_answer_and_ends_with_everything_it_started(
    tmp_path: Path, broker: str, command: tuple[str | Path, ...]
) -> None:
    done = _once(tmp_path, *command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Broker  {broker} on 127.0.0.1:")
    assert "Paris" in done.stdout
    assert "tokens/s, first token" in done.stdout
    assert re.search(r"(?m)^> .*/frame\.jpg, which shows (.+)\n\1\n\n  757 image tokens, answered", done.stdout)
    assert _left(tmp_path) == []


def test_a_named_broker_is_used(tmp_path: Path, broker: Broker) -> None:
    done = _once(tmp_path, *_DEMO, "--broker", f"127.0.0.1:{broker.port}")
    assert done.returncode == 0
    assert "Paris" in done.stdout


def test_a_broker_that_is_not_there_ends_it_with_a_sentence(tmp_path: Path) -> None:
    done = _once(tmp_path, *_DEMO, "--broker", "127.0.0.1:1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no broker answers at 127.0.0.1:1" in done.stderr
    assert _left(tmp_path) == []


def test_an_agent_that_cannot_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / ".demo").mkdir()
    (tmp_path / ".demo" / "state").write_text("a file where a folder should be")
    done = _once(tmp_path, *_DEMO)
    assert done.returncode == 3
    assert "the agent ended by itself" in done.stderr
    assert "state" in done.stderr
    assert _left(tmp_path) == []


def test_ctrl_c_lets_the_agent_drain_while_the_broker_still_runs(tmp_path: Path, staying: Staying) -> None:
    os.killpg(staying.process.pid, signal.SIGINT)
    assert staying.process.wait(60) == 0
    # Said of a client that took its leave.
    assert "Client edge-slm-demo disconnected." in (tmp_path / ".demo" / "broker.log").read_text()
    assert "service.drained" in (tmp_path / ".demo" / "agent.log").read_text()
    assert _left(tmp_path) == []


def test_a_demo_whose_terminal_is_gone_still_stops_everything(tmp_path: Path, staying: Staying) -> None:
    assert staying.process.stdout is not None
    staying.process.stdout.close()
    staying.process.send_signal(signal.SIGHUP)
    staying.process.wait(60)
    assert _left(tmp_path) == []


def test_a_killed_demo_leaves_nothing_behind(tmp_path: Path, staying: Staying) -> None:
    staying.process.kill()
    staying.process.wait()
    deadline = time.monotonic() + 30
    while _left(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)  # orphans have nobody that could wait for them
    assert _left(tmp_path) == []


def test_the_line_to_ask_from_another_terminal_works_as_it_is(staying: Staying) -> None:
    asked = subprocess.run(["sh", "-c", staying.line(" ask ")], cwd="/", capture_output=True, text=True, check=True)
    assert "sky" in asked.stdout


def test_the_line_to_ask_about_the_picture_works_as_it_is(staying: Staying) -> None:
    asked = subprocess.run(["sh", "-c", staying.line(" --image ")], cwd="/", capture_output=True, text=True, check=True)
    assert asked.stdout in "".join(staying.lines)


@pytest.mark.parametrize("staying", [_DEMO, _DEMO_WITHOUT_MOSQUITTO], ids=["mosquitto", "iotcore"], indirect=True)
def test_the_lines_for_mosquittos_clients_work_as_they_are(staying: Staying) -> None:
    # -d tells when the subscription stands, but into a pipe it would tell it late.
    listen = ["stdbuf", "-oL", "sh", "-c", f"exec {staying.line('mosquitto_sub')} -d"]
    with subprocess.Popen(listen, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        next(line for line in listening.stdout if line.startswith("Subscribed"))
        finals = (line for line in listening.stdout if line.startswith("slm/demo/res/me/") and "/final {" in line)
        subprocess.run(["sh", "-c", staying.line("/req/me/text ")], check=True)
        assert "Rome" in next(finals)
        subprocess.run(["sh", "-c", staying.line("/req/me/image/")], check=True)
        assert '"camera":"porch"' in next(finals)
        listening.terminate()
