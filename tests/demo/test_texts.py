"""What the demo writes and says."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent import demo
from agent.demo import texts
from agent.demo.brokers import Address
from agent.layers import load
from agent.settings import Settings

_PROGRAM = Path("/opt/my checkout/.venv/bin/edge-slm")
_FINAL: dict[str, Any] = {
    "usage": {"completion_tokens": 8, "image_tokens": 757},
    "placement": {"model": "smollm2-135m", "provider": "cpu"},
    "timing": {"queued_s": 1.5, "first_token_s": 1.714, "total_s": 1.8, "tokens_per_s": 98.04},
}


def _settings(folder: Path, address: Address) -> Settings:
    file = folder / "config.yaml"
    file.write_text(texts.configuration(address, folder / 'it\'s a "place": #1', folder / "models"))
    return load([file], []).settings


def test_the_configuration_is_one_that_the_agent_reads(tmp_path: Path) -> None:
    settings = _settings(tmp_path, Address("::1", 1884, "5"))
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.protocol) == ("::1", 1884, "5")


def test_a_folder_with_any_name_can_hold_the_state(tmp_path: Path) -> None:
    assert _settings(tmp_path, Address("::1", 1884)).state_dir == tmp_path / 'it\'s a "place": #1' / "state"


def test_the_numbers_are_told_in_a_line() -> None:
    assert texts.numbers(_FINAL) == (
        "98.0 tokens/s, first token 0.21 s after the start, 1.50 s in the queue while the model loaded;"
        " 8 tokens by smollm2-135m on cpu"
    )


def test_the_numbers_of_a_frame_are_told_in_a_line() -> None:
    assert texts.frame_numbers(_FINAL) == "757 image tokens, answered 0.30 s after the start by smollm2-135m on cpu"


def test_an_answer_too_short_for_a_rate_has_none() -> None:
    assert texts.numbers(_FINAL | {"timing": _FINAL["timing"] | {"tokens_per_s": None}}).startswith(
        "first token 0.21 s"
    )


@pytest.mark.parametrize(("version", "lines"), [("3.1.1", 0), ("5", 5)])
def test_the_lines_to_paste_speak_the_version_that_the_broker_was_found_to_speak(
    tmp_path: Path, version: str, lines: int
) -> None:
    settings = _settings(tmp_path, Address("127.0.0.1", 1883))
    assert (
        texts.invitation(_PROGRAM, tmp_path / "c.yaml", tmp_path / "frame.jpg", settings, version).count("-V 5")
        == lines
    )


def _words(tmp_path: Path, program: str) -> list[str]:
    """Return the words that a shell makes of the last line for a program."""
    settings = _settings(tmp_path, Address("127.0.0.1", 1883))
    text = texts.invitation(_PROGRAM, tmp_path / "my c.yaml", tmp_path / "it's.jpg", settings, "5")
    line = [line for line in text.splitlines() if f"{program} " in line][-1]
    command = ["sh", "-c", f"printf '%s\\n' {line}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_the_lines_to_paste_are_shell_whatever_the_folders_are_called(tmp_path: Path) -> None:
    asking = [str(_PROGRAM), "ask", "--config", str(tmp_path / "my c.yaml"), "--image", str(tmp_path / "it's.jpg")]
    assert _words(tmp_path, "ask")[:-1] == asking
    assert _words(tmp_path, "mosquitto_pub")[-2:] == ["-f", str(tmp_path / "it's.jpg")]


def test_models_are_kept_where_the_user_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo.models_dir() == tmp_path / "edge-slm" / "models"


@pytest.mark.parametrize("value", ["", "relative/cache"])
def test_a_cache_folder_that_is_no_absolute_path_is_ignored(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert demo.models_dir() == Path.home() / ".cache" / "edge-slm" / "models"
