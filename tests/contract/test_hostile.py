"""What one message may cost: it is read on the event loop, and kept in memory while it waits."""

import time
import tracemalloc
from collections.abc import Iterable

import pytest

from agent.contract.body import Bounds
from agent.contract.jobs import Job
from agent.contract.messages import Inbound
from agent.contract.requests import Limits, Refusal, read_request
from agent.contract.topics import Kind, Route, Topics
from tests.contract.pictures import PNG, text

TOPICS = Topics("slm", "box1")
LIMITS = Limits(text_bytes=1 << 20, image_bytes=8 << 20, pictures=Bounds(1000, 1_000_000))
TEXT = Route(Kind.TEXT, "dev7")
IMAGE = Route(Kind.IMAGE, "dev7", "porch")

# Seconds of CPU. Parsing the JSON alone takes up to 0.05 s here, and what this guards against took 0.3 s to 15 s.
ENOUGH = 0.25


def read(payload: bytes, route: Route = TEXT) -> Job | Refusal:
    return read_request(Inbound("unused", payload), route, TOPICS, LIMITS, "made-id")


def many(element: str, size: int) -> str:
    """Return as many elements of a list as ``size`` bytes take."""
    return ",".join([element] * (size // (len(element) + 1)))


def content(parts: str) -> bytes:
    return f'{{"messages":[{{"role":"user","content":[{parts}]}}]}}'.encode()


def prompt(name: str, value: str) -> bytes:
    return f'{{"prompt":"x","{name}":{value}}}'.encode()


def turns(messages: Iterable[str]) -> bytes:
    return f'{{"messages":[{",".join(messages)}]}}'.encode()


M = (1 << 20) - 100
NAMES = ",".join(f'"{name:x}":1' for name in range(90_000))
QUOTED = '"a"'
PART = '{"type":"text","text":"a"}'
HOSTILE = {
    "parts that are nothing": content(many("{}", M)),
    "parts that are numbers": content(many("1", M)),
    "parts without a text": content(many('{"type":"text"}', M)),
    "good parts in one turn": content(many(PART, M)),
    "good parts in many turns": turns([f'{{"role":"user","content":[{many(PART, 250 * 27)}]}}'] * 150),
    "turns that are nothing": turns([many("{}", M)]),
    "turns of bad parts": turns([f'{{"role":"user","content":[{many("{}", 1000)}]}}'] * 950),
    "lists where an object belongs": prompt("response_format", f"[{many('{}', M)}]"),
    "stops that are numbers": prompt("stop", f"[{many('1', M)}]"),
    "stops": prompt("stop", f"[{many(QUOTED, M)}]"),
    "pictures that are numbers": prompt("images", f"[{many('1', M)}]"),
    "unknown names": f"{{{NAMES}}}".encode(),
    "unknown names in a turn": turns([f'{{"role":"user","content":"x",{NAMES}}}']),
    "unknown names in a response format": prompt("response_format", f'{{"type":"text",{NAMES}}}'),
    "a broken end": f'{{"messages":[{many("{}", M)}'.encode(),
    "an enormous number": prompt("seed", "1" * M),
    "spaces": b" " * M,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_legal_size_holds_the_loop(name: str) -> None:
    started = time.thread_time()
    found = read(HOSTILE[name])
    assert time.thread_time() - started < ENOUGH
    assert isinstance(found, Refusal)


IMAGES = {
    "empty parts": content(many("{}", (8 << 20) - 100)),
    "numbers": content(many("1", (8 << 20) - 100)),
    "good parts": content(many(PART, (8 << 20) - 100)),
    "many pictures": prompt("images", f"[{many(QUOTED, 256 << 10)},{'A' * (7 << 20)!r}]".replace("'", '"')),
    "a picture of spaces": prompt("image", f'"{" " * (8_000_000)}"'),
    "a picture of umlauts": prompt("image", f'"{"ä" * (4_000_000)}"'),
    "a picture of escapes": prompt("image", '"' + r"\u0041" * 1_300_000 + '"'),
    "spaces": b" " * 8_000_000,
    "brackets": b"[" * 8_000_000,
}


@pytest.mark.parametrize("name", IMAGES)
def test_eight_megabytes_on_the_image_topic_do_not_either(name: str) -> None:
    payload = IMAGES[name]
    started = time.thread_time()
    found = read(payload, IMAGE)
    assert time.thread_time() - started < ENOUGH
    assert isinstance(found, Refusal)


def test_what_is_too_large_is_refused_without_being_read() -> None:
    payload = b" " * (64 << 20)
    started = time.thread_time()
    found = read(payload)
    assert time.thread_time() - started < 0.02  # to look at every byte took 0.15 s
    assert isinstance(found, Refusal)


@pytest.mark.parametrize("pad", ["", " "])
def test_a_large_broken_object_is_refused_under_its_id(pad: str) -> None:
    # With one of the two, what is read a second time ends inside a character.
    assert read(f'{{{pad}"prompt":"x","id":"j1","model":"{"ä" * 50_000}'.encode()).key.id == "j1"


def test_a_long_conversation_of_texts_and_pictures_is_accepted() -> None:
    picture = f'{{"type":"image_url","image_url":{{"url":"data:;base64,{text(PNG)}"}}}}'
    assert isinstance(read(turns([f'{{"role":"user","content":[{PART},{picture}]}}'] * 1000)), Job)


def test_many_small_parts_are_told_to_be_too_many() -> None:
    found = read(HOSTILE["good parts in many turns"])
    assert isinstance(found, Refusal)
    assert found.error.message == "the request has more than 4,096 messages, parts and other objects"


def test_a_waiting_job_keeps_little_more_than_its_words() -> None:
    payload = turns([f'{{"role":"user","content":[{many(PART, 3 * 27)}]}}'] * 1000)
    read(payload)  # what is made once is not the job's
    tracemalloc.start()
    try:
        found = read(payload)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(found, Job)
    assert kept < 10 * len(payload)
