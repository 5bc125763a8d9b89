"""What a picture's header says before anybody decodes it."""

import time
import zlib
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.contract.errors import Code, JobError
from agent.contract.pictures import from_text, judge
from tests.contract.pictures import GIF, JPEG, PNG, encoded, plain, text

PIXELS = 1_000_000


def unusable(why: str) -> str:
    return f"the picture cannot be used, {why}: send a whole JPEG, PNG or GIF, alone"


NO_PICTURE = unusable("it is no JPEG, PNG or GIF")
IN_HEADER = unusable("it is cut off within its header")
AT_END = unusable("it is cut off, or has other data after its end")


def refusal(data: bytes, said: str | None = None) -> tuple[Code, str]:
    with pytest.raises(JobError) as caught:
        judge(data, PIXELS, said)
    return caught.value.code, caught.value.message


def webp() -> bytes:
    return encoded(Image.new("RGB", (32, 32)), "WEBP")


@pytest.mark.parametrize("data", [PNG, JPEG, GIF])
def test_a_whole_picture_passes(data: bytes) -> None:
    judge(data, PIXELS)


def test_an_animation_passes() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    file = BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    judge(file.getvalue(), PIXELS)


def test_a_picture_of_several_as_phones_make_them_passes() -> None:
    file = BytesIO()
    Image.new("RGB", (32, 32)).save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    judge(file.getvalue(), PIXELS)


@pytest.mark.parametrize("padding", [b"\0" * 100, b"\r\n", b"\xff" * 5])
def test_padding_after_a_jpeg_is_forgiven(padding: bytes) -> None:
    judge(JPEG + padding, PIXELS)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the picture is empty"),
        (b"no picture", NO_PICTURE),
        (b"\xff\xd8\xff", IN_HEADER),
        (PNG[:20], IN_HEADER),
        (webp(), NO_PICTURE),
        (plain(1, 1), "the picture has 1x1 pixels, and each side needs at least 16"),
        (plain(20_000, 10), "the picture has 20000x10 pixels, and each side needs at least 16"),
        (plain(320, 16), "the picture has 320x16 pixels: no side may be over 16 times the other"),
        (JPEG[:-20], AT_END),
        (PNG[:-4], AT_END),
        (PNG + b"%PDF", AT_END),
        (JPEG + b"PK\3\4", AT_END),
        (GIF + b"<script>", AT_END),
    ],
    ids=[
        "empty",
        "not a picture",
        "three bytes",
        "half a header",
        "WebP",
        "1x1",
        "20000x10",
        "a strip",
        "truncated JPEG",
        "truncated PNG",
        "with a document",
        "with an archive",
        "with a script",
    ],
)
def test_what_is_no_whole_picture_is_refused_and_told_why(data: bytes, sentence: str) -> None:
    assert refusal(data) == (Code.BAD_REQUEST, sentence)


def test_a_picture_with_too_many_pixels_is_refused_by_its_header() -> None:
    code, sentence = refusal(plain(1001, 1000, mode="1"))
    assert (code, sentence.startswith("the picture has 1,001x1,000 pixels, and at most 1,000,000")) == (
        Code.TOO_LARGE,
        True,
    )


def test_a_bomb_is_refused_by_its_header() -> None:
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + b"\1\0\0\0\0"
    bomb = PNG[:8] + b"\0\0\0\x0d" + header + zlib.crc32(header).to_bytes(4, "big") + PNG[33:]
    assert refusal(bomb)[0] is Code.TOO_LARGE


def test_a_gif_whose_frame_is_larger_than_its_screen_is_judged_by_the_frame() -> None:
    small = bytearray(plain(1001, 1000, "GIF"))
    small[6:10] = (32).to_bytes(2, "little") * 2
    assert refusal(bytes(small))[0] is Code.TOO_LARGE


MANY = 1 << 20
HOSTILE = {
    "empty segments": b"\xff\xd8" + b"\xff\xe0\0\2" * MANY,
    "fill bytes": b"\xff\xd8" + b"\xff" * MANY,
    "segments after the size": JPEG[:-2].replace(b"\xff\xda", b"\xff\xe1\0\x08Exif\0\0" * 300 + b"\xff\xda")
    + JPEG[-2:],
    "segments within one without a length": b"\xff\xd8\xff\xd0\xff\xff" + b"\xff\xe0\0\2" * MANY,
    "two sizes": JPEG[:-2].replace(b"\xff\xda", b"\xff\xc0\0\x0b\x08\x40\0\x40\0\1\1\x11\0\xff\xda") + JPEG[-2:],
    "profiles": PNG[:33] + (b"\0\0\0\1iCCPx" + bytes(4)) * 100 + PNG[33:],
    "scans": JPEG[:-2] + b"\xff\xda" * 101 + JPEG[-2:],
    "empty chunks": PNG[:33] + (b"\0\0\0\0tEXt" + bytes(4)) * (MANY // 8) + PNG[33:],
    "comments": GIF[:13] + b"\x21\xfe" + b"\1x" * MANY + b"\0" + GIF[13:],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_takes_too_many_steps_to_read_is_refused_after_few(name: str) -> None:
    started = time.thread_time()
    assert refusal(HOSTILE[name])[0] is Code.BAD_REQUEST
    assert time.thread_time() - started < 0.05


def test_a_picture_that_is_called_something_else_is_refused() -> None:
    assert refusal(PNG, "JPEG") == (
        Code.BAD_REQUEST,
        "the picture is called a JPEG and is a PNG: name it what it is",
    )


@given(st.sampled_from([PNG, JPEG, GIF]), st.integers(0, 200), st.binary(max_size=40))
def test_a_damaged_header_is_judged_or_refused_and_nothing_else(data: bytes, at: int, damage: bytes) -> None:
    with suppress(JobError):
        judge(data[:at] + damage + data[at + len(damage) :], PIXELS)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (text(PNG), None),
        (f"data:image/png;base64,{text(PNG)}", "PNG"),
        (f"data:IMAGE/JPG;base64,{text(PNG)}", "JPEG"),
        (f"data:image/webp;base64,{text(PNG)}", "webp"),
        (f"data:;base64,{text(PNG)}", None),
        ("\n".join(text(PNG)[at : at + 76] for at in range(0, len(text(PNG)), 76)) + "\n", None),
    ],
)
def test_base64_is_read_bare_in_lines_and_in_a_data_uri(url: str, said: str | None) -> None:
    assert from_text(url) == (PNG, said)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("!!!!", "the picture is not base64"),
        (text(PNG)[:-2] if text(PNG).endswith("=") else text(PNG)[:-1], "the picture is not base64"),
        ("ä" * 20, "the picture is not base64"),
        ("https://example.org/a.jpg", "this box fetches nothing: send the picture itself, as base64 or as a data URI"),
        ("data:image/png,AAAA", "a picture's data URI begins `data:image/jpeg;base64,` (or png, or gif)"),
        ("data:text/html;base64,AAAA", "a picture's data URI begins `data:image/jpeg;base64,` (or png, or gif)"),
    ],
)
def test_what_is_no_base64_is_refused_and_told_why(url: str, sentence: str) -> None:
    with pytest.raises(JobError) as caught:
        from_text(url)
    assert caught.value.message == sentence
