"""A final that is cut for a broker that does not take it whole."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.ask import Answer
from agent.contract.errors import Code, JobError
from agent.contract.events import Final, Outcome, Usage, shortened
from agent.contract.jobs import Key

FINAL = Final(Key("dev7", "j1"), Outcome.SUCCEEDED, seq=3, usage=Usage(39, 57))
# More than everything but the text takes.
ENOUGH = 700


def cut(final: Final, most: int) -> tuple[bytes, dict[str, Any]]:
    payload = shortened(final.encode("box1"), most, 2000)
    return payload, json.loads(payload)


@given(st.text(st.characters(codec="utf-8") | st.sampled_from('"\\\n\0é€😀'), min_size=800), st.integers(0, 99))
def test_it_has_as_many_whole_characters_as_fit(text: str, more: int) -> None:
    most = ENOUGH + more
    payload, final = cut(replace(FINAL, text=text), most)
    kept = len(final["text"])
    longer = final | {"text": text[: kept + 1]}
    assert text.startswith(final["text"])
    assert len(payload) <= most < len(json.dumps(longer, ensure_ascii=False, separators=(",", ":")).encode())


def test_it_says_so() -> None:
    _, final = cut(replace(FINAL, text="a" * 2000), ENOUGH)
    said = "the text was cut to fit the broker's largest packet of 2,000 bytes: raise that limit to have it whole"
    assert (final["truncated"], final["notice"]) == (True, said)


def test_it_keeps_an_earlier_notice() -> None:
    _, final = cut(replace(FINAL, text="a" * 2000, notice="the response topic is not yours"), ENOUGH)
    assert final["notice"].startswith("the response topic is not yours; the text was cut")


def test_it_keeps_everything_else() -> None:
    whole = replace(FINAL, text="a" * 2000, camera="porch")
    _, final = cut(whole, ENOUGH)
    dropped = dict.fromkeys(("text", "truncated", "notice"))
    assert final | dropped == json.loads(whole.encode("box1")) | dropped


def test_what_has_no_room_loses_its_numbers_before_its_error() -> None:
    error = JobError(Code.QUEUE_FULL, "64 jobs wait: try again in 4 s", 4)
    payload, final = cut(replace(FINAL, text="a" * 2000, error=error), 450)
    assert (final["usage"], final["timing"], final["error"]) == (None, None, error.as_dict())
    assert (len(payload), final["truncated"], "notice" in final) == (450, True, False)


def test_what_the_terminal_has_of_a_cut_answer_is_not_printed_again() -> None:
    answer = Answer()
    chunk = {"attempt": 1, "seq": 0, "text": "Hello world"}
    final = {"attempt": 1, "text": "Hello", "truncated": True}
    assert answer.take("chunk", chunk) + answer.take("final", final) == "Hello world\n"


@pytest.mark.parametrize("most", [-1, 0, 100])
def test_it_is_as_short_as_it_gets_where_nothing_fits(most: int) -> None:
    payload, final = cut(replace(FINAL, text="a" * 2000), most)
    assert (len(payload) < ENOUGH // 2, final["id"], final["text"]) == (True, "j1", "")
