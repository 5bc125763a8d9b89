"""What a log line may hold."""

import json
from collections.abc import Iterator

import pytest
import structlog

from agent import logs


@pytest.fixture(autouse=True)
def _configuration_undone() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def _fields(line: str) -> str:
    """Return a console line without the colours that are the renderer's own."""
    return line.partition("topic")[2]


def test_a_topic_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(style="console")
    structlog.get_logger().warning("message.ignored", topic="slm\x1b]0;pwned\x07\x9b2J\u202e")
    assert r"slm\x1b]0;pwned\x07\x9b2J\u202e" in _fields(capsys.readouterr().err)


def test_a_topic_cannot_look_like_another_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(style="console")
    structlog.get_logger().warning("message.ignored", topic="slm\nservice.stopped\r")
    line = capsys.readouterr().err
    assert (line.count("\n"), line.count("\r")) == (1, 0)


def test_a_traceback_keeps_its_lines_and_escapes_what_is_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(style="console")
    structlog.get_logger().error("message.broken", exc_info=ValueError("\x1b[2J"))
    assert capsys.readouterr().err.splitlines()[-1] == r"ValueError: \x1b[2J"


def test_words_of_any_language_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(style="json")
    structlog.get_logger().warning("message.ignored", topic="Küche/温度")
    assert json.loads(capsys.readouterr().err)["topic"] == "Küche/温度"


def test_what_is_too_long_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(style="json")
    structlog.get_logger().warning("message.ignored", topic="x" * 65_535)
    assert json.loads(capsys.readouterr().err)["topic"] == "x" * 300 + "…"
