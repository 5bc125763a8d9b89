"""What `ask` sends, and what it prints of what comes."""

import io
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agent.cli.ask import Answer, request_of
from agent.cli.parser import parser
from agent.contract.body import Bounds
from agent.contract.jobs import Job, PicturePart, TextPart
from agent.contract.messages import Inbound
from agent.contract.requests import Limits, read_request
from agent.contract.topics import Kind, Topics
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


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Write two files that stand for pictures; only the box looks into them."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    return ["--image", str(tmp_path / "a"), "--image", str(tmp_path / "b")]


def test_pictures_go_with_the_prompt_in_their_order(files: list[str]) -> None:
    assert asked(*files, "--detail", "low", "Hi") == {
        "id": "j1",
        "prompt": "Hi",
        "images": [b64encode(b"a").decode(), b64encode(b"b").decode()],
        "detail": "low",
    }


def test_beside_a_system_message_pictures_stand_before_the_users_words(files: list[str]) -> None:
    _, user = asked(*files, "--system", "Be brief.", "Hi")["messages"]
    parts = [part.get("text") or part["image_url"]["url"] for part in user["content"]]
    assert parts == [b64encode(b"a").decode(), b64encode(b"b").decode(), "Hi"]


@pytest.mark.parametrize(("name", "why"), [("none.jpg", "No such file or directory"), ("", "Is a directory")])
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked("--image", str(tmp_path / name), "Hi")
    assert str(caught.value) == f"{tmp_path / name} cannot be read ({why}): give a JPEG, PNG or GIF file"


def test_an_empty_file_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(UsageError, match=r"a\.jpg is empty: give a JPEG, PNG or GIF file"):
        asked("--image", str(tmp_path / "a.jpg"), "Hi")


def test_a_picture_alone_is_nothing_to_ask(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(UsageError, match="there is nothing to ask: give a prompt"):
        asked(*files)


def test_what_is_sent_is_a_job_with_pictures_to_the_box(tmp_path: Path, files: list[str]) -> None:
    for number, name in enumerate("ab"):
        Image.new("RGB", (20, 20 + number)).save(tmp_path / name, "PNG")
    payload = json.dumps(asked(*files, "--system", "Be brief.", "--detail", "high", "Hi")).encode()
    topics = Topics("slm", "box1")
    route = topics.read(topics.request("cli", Kind.IMAGE, "ask"))
    assert route is not None
    limits = Limits(text_bytes=1024, image_bytes=10_000, pictures=Bounds(pictures=2, pixels=1000))
    job = read_request(Inbound("", payload), route, topics, limits, "new")
    assert isinstance(job, Job)
    assert job.pictures == ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes())
    assert job.messages[1].content == [
        PicturePart(type="picture", index=0, detail="high"),
        PicturePart(type="picture", index=1, detail="high"),
        TextPart(type="text", text="Hi"),
    ]
