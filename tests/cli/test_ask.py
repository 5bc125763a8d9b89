"""What `ask` sends, and what it prints of what comes."""

import io
from typing import Any

import pytest

from agent.cli.ask import Answer, request_of
from agent.cli.parser import parser
from agent.errors import UsageError


def chunk(text: str, seq: int, attempt: int = 1) -> tuple[str, dict[str, Any]]:
    return ("chunk", {"attempt": attempt, "seq": seq, "text": text})


def final(text: str, attempt: int = 1) -> tuple[str, dict[str, Any]]:
    return ("final", {"attempt": attempt, "text": text})


def printed(*events: tuple[str, dict[str, Any]]) -> str:
    answer = Answer()
    return "".join(answer.take(kind, body) for kind, body in events)


def test_words_are_printed_as_they_come_and_once() -> None:
    assert printed(("state", {}), chunk("Hello", 0), chunk(" world", 1), final("Hello world")) == "Hello world\n"


def test_what_was_lost_at_the_end_comes_with_the_final() -> None:
    assert printed(chunk("Hello", 0), final("Hello world")) == "Hello world\n"


def test_after_a_gap_the_final_tells_the_rest() -> None:
    assert printed(chunk("a", 0), chunk("c", 2), final("abc")) == "abc\n"


def test_a_restarted_answer_says_so_and_begins_again() -> None:
    assert printed(chunk("old", 0), chunk("new", 0, attempt=2), final("new", attempt=2)) == (
        "old\n[the engine was restarted; the answer begins again]\nnew\n"
    )


def test_an_answer_without_chunks_is_the_final() -> None:
    assert printed(final("Hello")) == "Hello\n"


def test_a_failed_job_prints_no_empty_line() -> None:
    assert printed(final("")) == ""


def asked(*arguments: str) -> dict[str, Any]:
    return request_of(parser().parse_args(["ask", "--id", "j1", *arguments]))


def test_options_become_the_contracts_fields() -> None:
    request = asked("--max-tokens", "5", "--temperature", "0", "--seed", "7", "--stop", "a", "--stop", "b", "Hi")
    assert request == {"id": "j1", "prompt": "Hi", "max_tokens": 5, "temperature": 0.0, "seed": 7, "stop": ["a", "b"]}


def test_a_system_message_makes_a_conversation() -> None:
    assert asked("--system", "Be brief.", "Hi")["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_without_a_prompt_standard_input_is_read(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("From a pipe\n"))
    assert asked(*arguments)["prompt"] == "From a pipe"


def test_nothing_to_ask_is_an_error_that_shows_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(UsageError, match="there is nothing to ask: give a prompt"):
        asked()
