"""The command line's promises: exit codes, one sentence an error, output a script can read."""

import json
import subprocess
from pathlib import Path

import pytest

from agent.cli import main
from tests.boxes import EDGE_SLM


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    captured = capsys.readouterr()
    return left.value.code, captured.out, captured.err


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "box.yaml"
    path.write_text(f"device: {{id: box1}}\nstate_dir: {tmp_path / 'state'}\n")
    return path


def test_a_right_configuration_is_said_to_be_right(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    assert run(capsys, "config", "check", "--config", str(config)) == (0, "the configuration of box1 is right\n", "")


def test_a_wrong_key_is_named_with_file_line_and_neighbour(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    config.write_text("device: {id: box1}\nmqtt:\n  hsot: 10.0.0.5\n")
    code, _, error = run(capsys, "config", "check", "--config", str(config))
    assert (code, error) == (2, f"edge-slm: {config}:3: unknown key `mqtt.hsot`; did you mean `mqtt.host`?\n")


def test_what_is_set_on_the_command_line_wins(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    _, out, _ = run(capsys, "config", "show", "--config", str(config), "--set", "mqtt.host=10.0.0.5")
    assert "host: 10.0.0.5" in out


def test_a_box_without_its_model_does_not_start_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    code, _, error = run(capsys, "run", "--config", str(config))
    assert code == 3
    assert "edge-slm models pull smollm2-135m" in error


def test_no_broker_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(capsys, "ask", "--broker", "127.0.0.1:1", "Hi")
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert error.startswith("edge-slm: no broker answers at 127.0.0.1:1 (")


def test_models_are_listed_for_scripts_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "models", "list", "--json", "--dir", str(tmp_path))
    assert (code, [(row["name"], row["installed"]) for row in json.loads(out)]) == (0, [("smollm2-135m", False)])


def test_an_installed_model_is_verified(capsys: pytest.CaptureFixture[str], model_store: Path) -> None:
    assert run(capsys, "models", "verify", "smollm2-135m", "--dir", str(model_store)) == (
        0,
        "smollm2-135m is whole\n",
        "",
    )


def test_a_usage_error_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "ask", "--nonsense")[0] == 2


def test_the_installed_command_tells_its_version() -> None:
    done = subprocess.run([EDGE_SLM, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("edge-slm ")
