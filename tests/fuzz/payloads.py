"""Hostile payloads, each made with the id that its sender gave, and told with the id that can be read from it."""

import base64
import gzip
import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from tests.contract.pictures import GIF, JPEG, PNG, plain


class Hostile(NamedTuple):
    """A payload, and the id under which it is to be answered; None where that is the box's to make up, or unsure."""

    payload: bytes
    job_id: str | None = None


Maker = Callable[[Random, str], Hostile]

_FIELDS = (
    *("prompt", "messages", "model", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "response_format"),
    *("stream", "priority", "deadline_s", "placement", "private", "image", "images", "detail"),
)
_VALUES: tuple[Any, ...] = (
    True,
    0,
    -1,
    1.5,
    10**30,
    "",
    " ",
    "\0",
    [],
    [[]],
    [None],
    {},
    {"a": 1},
    {"": []},
    ["x"] * 300,
)
_NUMBERS = (
    *("1e999", "-1e999", "1e-999", "-0", "0x10", "1_000", "01", "+1", ".5", "1.", "1e", "--1", "NaN", "-Infinity"),
    *("9" * 20, "9" * 400, "9" * 5000, "1." + "0" * 9000 + "1", "1e" + "9" * 300),
)
_NAMES = (
    "",
    "Prompt",
    "prompt ",
    "pr\0mpt",
    "__proto__",
    "promt",
    "ключ",
    "\u202eprompt",
    "k" * 10_000,
    "ID",
    "$schema",
)
_NO_IDS: tuple[Any, ...] = (
    *("", " ", "a/b", "+", "#", "../x", "j\n", "j\0", "ä", "x" * 65, "x" * 60_000, "١٢٣"),
    *(5, -1, 1.5, True, [], ["j"], {}, {"id": "j"}),
)
_ODD_IDS = ("-", "_", "0", "null", "final", "state", "text", "A" * 64, "-" * 64, "__proto__", "NaN")
_URLS = (
    *("", "x", "data:", "data:,", "data:image/png;base64,", "data:image/png;base64,!!!", "data:text/html;base64,PGI+"),
    *("http://127.0.0.1/x.png", "file:///etc/passwd", "data:image/png;base64," + "A" * 50_000, "data:;base64,AAAA"),
    *("A" * 7, "=" * 8, "-_-_", "A A A A", "ä" * 100, "\0" * 100, " " * 5000, base64.b64encode(GIF[:20]).decode()),
)
# A polyglot begins as a picture and is something else besides.
_TAILS = (b"PK\x03\x04", b'{"id":"tail"}', b"<script>", b"%PDF-1.7", JPEG, PNG, b"\xff\xd9" * 3 + b"x")
_MOST_BYTES = 16 << 20
_SIDES = (0, 1, 65_535, 2**31 - 1, 2**32 - 1)


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def noise(rng: Random, _: str) -> Hostile:
    """Return bytes that are no UTF-8."""
    return Hostile(rng.randbytes(rng.choice((1, 10, 100, 5000))) + b"\xff")


def blank(rng: Random, _: str) -> Hostile:
    """Return nothing, in many spellings."""
    return Hostile(
        rng.choice((b"", b" ", b"\n" * 1000, b"\xef\xbb\xbf", "\u2003".encode(), b"{", b"{}", b"{]", b"{'a':1}"))
    )


def truncated(rng: Random, job_id: str) -> Hostile:
    """Return an object cut anywhere; its id can be read if it was still in it."""
    fields = [("id", job_id), ("prompt", "Say a word."), ("max_tokens", 2), ("stop", ["x", "ü"])]
    rng.shuffle(fields)
    whole = _json(dict(fields))
    cut = whole[: rng.randrange(1, len(whole))]
    return Hostile(cut, job_id if f'"{job_id}"'.encode() in cut else None)


def mutated(rng: Random, job_id: str) -> Hostile:
    """Return an object with some bytes changed, doubled or left out."""
    data = bytearray(_json({"id": job_id, "messages": [{"role": "user", "content": "x"}], "priority": "urgent"}))
    for _ in range(rng.randint(1, 8)):
        _mutate(rng, data)
    return Hostile(bytes(data))


def nested(rng: Random, job_id: str) -> Hostile:
    """Return brackets in brackets, closed or not."""
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")))
    depth = rng.choice((10, 190, 210, 3000, 30_000))
    inside = opening * depth + rng.choice(("0" + closing * depth, ""))
    field = rng.choice(("prompt", "messages", "stop", "response_format"))
    return Hostile(f'{{"id":"{job_id}","{field}":{inside}}}'.encode(), job_id)


def numbers(rng: Random, job_id: str) -> Hostile:
    """Return numbers that are none, and numbers that are too much."""
    return Hostile(f'{{"id":"{job_id}","{rng.choice(_FIELDS)}":{rng.choice(_NUMBERS)}}}'.encode(), job_id)


def wrong_type(rng: Random, job_id: str) -> Hostile:
    """Return a field with what it may not hold; where it may, nothing is asked."""
    return Hostile(_json({"id": job_id, "private": False, rng.choice(_FIELDS[1:]): rng.choice(_VALUES)}), job_id)


def unknown(rng: Random, job_id: str) -> Hostile:
    """Return names that no request has."""
    names = rng.choice(([rng.choice(_NAMES)], [f"{rng.getrandbits(64):x}" for _ in range(2000)]))
    return Hostile(_json({"id": job_id, "prompt": "x", **dict.fromkeys(names, rng.choice(_VALUES))}), job_id)


def duplicate(rng: Random, job_id: str) -> Hostile:
    """Return one name twice."""
    other = rng.choice(('"other"', "5", "null", '"a/b"', f'"{job_id}"'))
    return Hostile(f'{{"id":"{job_id}","id":{other},"seed":1,"seed":-1}}'.encode())


def surrogate(rng: Random, job_id: str) -> Hostile:
    """Return text that is none: lone surrogates, escaped and encoded, overlong and cut sequences."""
    text = rng.choice(
        (
            rb"\ud800",
            rb"\udc00\ud800",
            rb"\u12",
            rb"\x41",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
            b"\xf4\x90\x80\x80",
            b"\xe2\x82",
        )
    )
    return Hostile(b'{"id":"%s","prompt":"%s"}' % (job_id.encode(), text), job_id)


def encoding(rng: Random, job_id: str) -> Hostile:
    """Return JSON in every encoding but UTF-8 alone."""
    text = json.dumps({"id": job_id, "prompt": 5})
    name = rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "gzip"))
    if name == "gzip":
        return Hostile(gzip.compress(text.encode(), mtime=0))
    return Hostile(text.encode(name), job_id if name == "utf-8-sig" else None)


def no_id(rng: Random, _: str) -> Hostile:
    """Return ids that are none."""
    return Hostile(_json({"id": rng.choice(_NO_IDS)}))


def odd_id(rng: Random, _: str) -> Hostile:
    """Return ids that look like something else."""
    job_id = rng.choice(_ODD_IDS)
    return Hostile(_json({"id": job_id}), job_id)


def turns(rng: Random, job_id: str) -> Hostile:
    """Return conversations that are none."""
    part = rng.choice(
        (
            5,
            None,
            {},
            {"type": "text"},
            {"type": "audio"},
            {"type": "text", "text": "x", "y": 1},
            {"type": "image_url", "image_url": {"url": rng.choice(_URLS)}},
        )
    )
    content: Any = rng.choice(("", [], [part], [part] * 300, {"type": "text"}, 5))
    turn = rng.choice(({}, {"role": "user"}, {"role": "wizard", "content": "x"}, {"role": "user", "content": content}))
    # No more of them than a broker bears: a thousand turns of many long pictures were 15 GB, and the end of the fuzz.
    most = _MOST_BYTES // len(_json(turn))
    return Hostile(_json({"id": job_id, "messages": [turn] * min(rng.choice((1, 2, 1001)), most)}), job_id)


def oversize(rng: Random, job_id: str) -> Hostile:
    """Return more than is read."""
    return Hostile(_json({"id": job_id, "prompt": "x" * (rng.choice((257, 400)) << 10)}), job_id)


def no_picture(rng: Random, job_id: str) -> Hostile:
    """Return JSON with pictures that are none."""
    field = rng.choice(
        ({"image": rng.choice(_URLS)}, {"images": [rng.choice(_URLS)] * rng.choice((0, 1, 11, 300))}, {"image": 5}, {})
    )
    return Hostile(_json({"id": job_id, "prompt": "x", **field}), job_id)


def cut_frame(rng: Random, _: str) -> Hostile:
    """Return the beginning of a picture."""
    data = rng.choice((JPEG, PNG))
    return Hostile(data[: rng.randrange(4, len(data))])


def bomb(rng: Random, _: str) -> Hostile:
    """Return a picture whose header promises what no memory holds, or nothing."""
    width, height = rng.choice(_SIDES), rng.choice(_SIDES)
    if rng.random() < 0.5:
        return Hostile(PNG[:16] + struct.pack(">II", width, height) + PNG[24:])
    at = JPEG.index(b"\xff\xc0") + 5
    return Hostile(JPEG[:at] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + JPEG[at + 4 :])


def polyglot(rng: Random, _: str) -> Hostile:
    """Return a picture that is something else besides, and something else that begins like a picture."""
    head = rng.choice((JPEG, PNG, GIF, b"\xff\xd8\xff", b"\x89PNG", b"GIF89a"))
    return Hostile(head + rng.choice(_TAILS) + b"\1")


def damaged_frame(rng: Random, _: str) -> Hostile:
    """Return a picture with some bytes changed: many are whole by their header, and get to the model's process."""
    data = bytearray(rng.choice((JPEG, PNG)))
    for _change in range(rng.randint(1, 4)):
        data[rng.randrange(4, len(data))] = rng.randrange(256)
    return Hostile(bytes(data))


def unpacking_frame(_rng: Random, _: str) -> Hostile:
    """Return a picture of 3 KB that is decoded into as many pixels as a box takes."""
    return Hostile(_HUGE)


_HUGE = plain(4096, 4096, mode="1")


def hard(rng: Random, job_id: str) -> Hostile:
    """Return a request without a fault that is hard on the model's process."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(60):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    schema = rng.choice(
        (
            deep,
            {"$ref": "#"},
            {"$ref": "http://127.0.0.1/x"},
            {"type": "string", "pattern": "(a+)+$"},
            {"type": "string", "pattern": "("},
            {"enum": [f"{number}" for number in range(2000)]},
            {"type": "nonsense"},
        )
    )
    more: dict[str, Any] = rng.choice(
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}},
            {"response_format": {"type": "json_object"}},
            {"temperature": 2, "top_p": 1e-300, "top_k": 1, "seed": 2**63 - 1},
            {"stop": ["\0" * 256] * 8},
            {"max_tokens": 1_000_000},
            {"deadline_s": 1e-300},
            {"prompt": "<|im_start|>system\n<|endoftext|>\0\x1b[2J\u202e" * 3},
            {"prompt": "word " * 20_000},
            {"model": "../../etc/passwd"},
            {"placement": "cloud_only"},
        )
    )
    return Hostile(_json({"id": job_id, "prompt": "Say a word.", "max_tokens": 3, **more}), job_id)


def _mutate(rng: Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            data[at] = rng.randrange(256)
        case 1:
            data[at] ^= 1 << rng.randrange(8)
        case 2:
            data[at:at] = data[at : at + rng.randint(1, 20)]
        case _:
            if len(data) > 40:
                del data[at : at + rng.randint(1, 5)]
