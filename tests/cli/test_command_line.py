"""The command line's promises: exit codes, one sentence an error, output a script can read."""

import json
import re
import subprocess
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest

from agent.bench import ROWS, VISION_ROWS, saturate, table
from agent.cli import main
from agent.cli.bench import bench
from agent.cli.parser import parser
from agent.errors import UsageError
from tests.boxes import EDGE_SLM
from tests.brokers import Broker


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


def test_an_impatient_ctrl_c_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agent.cli.parser.parser", interrupted)
    assert run(capsys, "run") == (130, "", "")


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
    found = {row["name"]: row["installed"] for row in json.loads(out)}
    assert (code, found["smollm2-135m"], found["shapes-vision"]) == (0, False, False)


def test_a_test_model_is_listed_as_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, out, _ = run(capsys, "models", "list", "--dir", str(tmp_path))
    assert re.search(r"(?m)^shapes-vision +Test model: sees coloured shapes +\d+ MB", out)


def test_an_installed_model_is_verified(capsys: pytest.CaptureFixture[str], model_store: Path) -> None:
    assert run(capsys, "models", "verify", "smollm2-135m", "--dir", str(model_store)) == (
        0,
        "smollm2-135m is whole\n",
        "",
    )


def test_a_usage_error_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "ask", "--nonsense")[0] == 2


@pytest.mark.parametrize("arguments", [("ask", "--id", "a b", "Hi"), ("ask", "--id", "", "Hi"), ("cancel", "a/b")])
def test_an_id_that_could_never_be_answered_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, _, error = run(capsys, *arguments, "--broker", "127.0.0.1:1")
    assert (code, error.count("\n")) == (2, 1)
    assert "cannot be a job's id: take 1 to 64 letters" in error


def test_a_row_that_the_bench_does_not_have_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "bench", "--rows", "nope")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ((), ROWS),
        (("--vision",), VISION_ROWS),
        (("--rows", "stall"), ["stall"]),
        (("--vision", "--rows", "detail", "decode"), ["detail", "decode"]),
    ],
)
def test_the_bench_measures_text_or_pictures_or_what_is_named(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], rows: Sequence[str]
) -> None:
    measured: list[Sequence[str]] = []

    def measure(_settings: object, *, rows: Sequence[str], as_json: bool) -> int:
        measured.append(rows)
        return int(as_json)

    monkeypatch.setattr(table, "run", measure)
    assert bench(parser().parse_args(["bench", *arguments])) == 0
    assert measured == [rows]


def test_the_bench_saturates_with_the_seed_and_the_picture_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[dict[str, object]] = []

    def measure(_settings: object, **named: object) -> int:
        measured.append(named)
        return 0

    monkeypatch.setattr(saturate, "run", measure)
    arguments = ["bench", "--saturate", "--seed", "7", "--plot", "loads.png"]
    assert bench(parser().parse_args(arguments)) == 0
    assert measured == [{"seed": 7, "as_json": False, "plot": Path("loads.png")}]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--plot", "loads.png"), "--plot draws what --saturate measures: give both"),
        (("--saturate", "--vision"), "--saturate has rows of its own: leave --rows and --vision out"),
        (("--saturate", "--rows", "decode"), "--saturate has rows of its own: leave --rows and --vision out"),
    ],
)
def test_options_of_the_bench_that_do_not_go_together_are_told(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    code, _, error = run(capsys, "bench", *arguments)
    assert (code, sentence in error) == (2, True)


def test_a_refused_login_is_not_called_a_missing_broker(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "passwords").touch()
    with Broker(tmp_path, "allow_anonymous false", f"password_file {tmp_path / 'passwords'}") as broker:
        code, _, error = run(capsys, "ask", "--broker", f"127.0.0.1:{broker.port}", "Hi")
    assert (code, error.count("\n")) == (1, 1)
    assert "refuses the login (Not authorized): check mqtt.username and its password" in error


def test_the_login_is_the_client_that_asks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("pattern write slm/+/req/%u/#\n")
    with Broker(tmp_path, f"acl_file {tmp_path / 'acl'}") as broker:
        to_broker = ("--broker", f"127.0.0.1:{broker.port}", "--set", "mqtt.username=dev7")
        assert run(capsys, "cancel", "j1", *to_broker) == (0, "", "")


def test_a_login_that_is_no_identifier_asks_as_cli(capsys: pytest.CaptureFixture[str], broker: Broker) -> None:
    assert run(capsys, "cancel", "j1", "--broker", f"127.0.0.1:{broker.port}", "--set", "mqtt.username=a@b")[0] == 0
    assert "/req/cli/cancel" in broker.log


@pytest.mark.parametrize("arguments", [("--debug", "ask", "--id", "a b", "x"), ("ask", "--debug", "--id", "a b", "x")])
def test_debug_shows_the_traceback_wherever_it_stands(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        main(arguments)


@pytest.mark.parametrize("command", ["run", "demo", "ask", "cancel j1", "models list", "config show", "bench"])
def test_every_command_takes_debug(command: str) -> None:
    assert parser().parse_args([*command.split(), "--debug"]).debug


@pytest.mark.parametrize("command", ["run", "demo", "ask", "cancel j1", "models list", "config show", "bench"])
def test_every_command_names_a_function(command: str) -> None:
    module, _, function = parser().parse_args(command.split()).command.partition(":")
    assert callable(getattr(import_module(f"agent.cli.{module}"), function))


def test_the_installed_command_tells_its_version() -> None:
    done = subprocess.run([EDGE_SLM, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("edge-slm ")
