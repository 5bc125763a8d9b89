"""Chunks are read as words, an end and a usage, and whatever is none of it as a failure."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agent.contract.events import Usage
from agent.engines.cloud.faults import Failed
from agent.engines.cloud.stream import Answer, read


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> str:
    delta = {"role": "assistant"} if content is None else {"content": content}
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


def taken(*data: str) -> tuple[Answer, str]:
    answer = Answer()
    return answer, "".join(map(answer.take, data))


def test_words_are_counted_chunk_by_chunk() -> None:
    answer, words = taken(chunk(), chunk("a"), chunk(" b"), chunk(""))
    assert (words, answer.tokens) == ("a b", 2)


@pytest.mark.parametrize(
    ("said", "finish"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("tool_calls", "stop")],
)
def test_the_reason_of_the_end_is_one_of_three(said: str, finish: str) -> None:
    assert taken(chunk("a"), chunk(finish=said))[0].finish == finish


def test_a_stream_that_says_it_is_done_is() -> None:
    assert taken(chunk("a"), "[DONE]")[0].finish == "stop"


def test_a_stream_that_does_not_was_cut_off() -> None:
    with pytest.raises(Failed) as failed:
        _ = taken(chunk("a"))[0].finish
    assert failed.value.fault.word == "truncated"


@pytest.mark.parametrize(
    ("said", "usage"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}, Usage(3, 2)),
        ({"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}, Usage(3, 2, 1)),
        ({"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": None}, Usage(3, 2)),
        ({"prompt_tokens": "3", "completion_tokens": -2}, Usage(0, 0)),
        (None, None),
        ([], None),
    ],
)
def test_usage_comes_with_a_chunk_without_choices(said: Any, usage: Usage | None) -> None:
    assert taken(chunk("a", "stop"), json.dumps({"choices": [], "usage": said}))[0].usage == usage


def test_a_verdict_on_the_prompt_is_no_end() -> None:
    verdict = json.dumps({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
    answer, words = taken(verdict, chunk("a"), "[DONE]")
    assert (words, answer.finish) == ("a", "stop")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ("{", "truncated"),
        ("[]", "truncated"),
        ("null", "truncated"),
        ("[" * 100_000, "truncated"),
        (json.dumps({"error": {"message": "x", "code": 500}}), "not_ready"),
        (json.dumps({"status": 429, "title": "Too Many Requests"}), "rate_limit"),
        (json.dumps({"detail": "x"}), "not_ready"),
    ],
)
def test_what_is_no_chunk_is_a_failure(data: str, word: str) -> None:
    with pytest.raises(Failed) as failed:
        taken(chunk("a"), data)
    assert failed.value.fault.word == word


@pytest.mark.parametrize(
    "data",
    [
        "{}",
        '{"choices": null}',
        '{"choices": [null]}',
        '{"choices": [{"delta": null}]}',
        '{"choices": [{"delta": {"content": [1]}, "finish_reason": 7}]}',
        '{"choices": [{"delta": {"reasoning_content": "hm"}}]}',
    ],
)
def test_a_chunk_without_words_has_none(data: str) -> None:
    assert taken(data)[1] == ""


def test_a_chunk_that_the_loop_would_stand_still_for_is_not_read() -> None:
    with pytest.raises(Failed, match="broke off"):
        taken(chunk("word " * 300_000))


def test_an_answer_in_one_piece_is_the_same() -> None:
    whole = {
        "choices": [{"message": {"content": "a b"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    answer = Answer()
    assert (answer.take_whole(json.dumps(whole).encode()), answer.finish, answer.usage) == (
        "a b",
        "length",
        Usage(3, 2),
    )


@pytest.mark.parametrize("whole", [b"", b"{}", b'{"choices": [{"message": {"content": "a"}}]}'])
def test_a_piece_that_is_not_whole_is_a_failure(whole: bytes) -> None:
    with pytest.raises(Failed):
        Answer().take_whole(whole)


def response(body: str, kind: str = "text/event-stream") -> httpx.Response:
    async def bytes_of() -> AsyncIterator[bytes]:
        for byte in body.encode():
            yield bytes([byte])

    return httpx.Response(200, headers={"content-type": kind}, content=bytes_of())


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
async def test_events_are_read_however_they_are_cut(end: str) -> None:
    events = [": a comment", *(f"data: {data}" for data in (chunk("a\u2028ü"), chunk("b", "stop"), "[DONE]"))]
    answer = Answer()
    words = [each async for each in read(response("".join(event + end for event in events)), answer)]
    assert (words, answer.finish) == (["a\u2028ü", "b"], "stop")


async def test_a_stream_that_is_done_is_not_waited_for() -> None:
    async def held_open() -> AsyncIterator[bytes]:
        yield f"data: {chunk('a')}\n\ndata: [DONE]\n\n".encode()
        await asyncio.Event().wait()

    answer = Answer()
    async with asyncio.timeout(1.0):
        held = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=held_open())
        words = [each async for each in read(held, answer)]
    assert (words, answer.finish) == (["a"], "stop")


@pytest.mark.parametrize("end", [chunk(finish="stop"), "[DONE]"], ids=["reason", "done"])
@pytest.mark.parametrize("badly", [httpx.RemoteProtocolError("no last chunk"), httpx.ReadTimeout("")], ids=type)
async def test_a_whole_answer_is_whole_however_its_connection_ends(end: str, badly: httpx.HTTPError) -> None:
    answer = Answer()
    words = [each async for each in read(cut(badly, chunk("a"), end), answer)]
    assert (words, answer.finish) == (["a"], "stop")


async def test_an_answer_that_is_not_whole_is_lost_with_its_connection() -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        _ = [each async for each in read(cut(httpx.RemoteProtocolError("cut"), chunk("a")), Answer())]


async def test_who_has_said_all_and_no_usage_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.engines.cloud.stream._USAGE_S", 0.05)
    answer = Answer()
    async with asyncio.timeout(1.0):
        words = [each async for each in read(cut(None, chunk("a"), chunk(finish="length")), answer)]
    assert (words, answer.finish, answer.usage) == (["a"], "length", None)


async def test_usage_that_follows_the_last_word_is_read() -> None:
    answer = Answer()
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    _ = [each async for each in read(cut(httpx.ReadError(""), chunk("a"), chunk(finish="stop"), usage), answer)]
    assert answer.usage == Usage(3, 2)


def cut(badly: httpx.HTTPError | None, *data: str) -> httpx.Response:
    """Return a response that says so much, and then breaks, or is held open in silence."""

    async def bytes_of() -> AsyncIterator[bytes]:
        for each in data:
            yield f"data: {each}\n\n".encode()
        if badly is not None:
            raise badly
        await asyncio.Event().wait()

    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=bytes_of())


async def test_a_login_page_is_no_answer() -> None:
    with pytest.raises(Failed) as failed:
        _ = [each async for each in read(response("<html>", "text/html; charset=utf-8"), Answer())]
    assert failed.value.fault.word == "network"
