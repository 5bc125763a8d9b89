from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile

from agent.contract.errors import Code, JobError
from agent.engines.worker.crops import cut
from agent.engines.worker.pictures import Picture
from tests.engines.running import PHOTOGRAPH, PHOTOGRAPHS

LOW, AUTO, HIGH = 1, 4, 16
RED, BLUE = (254, 0, 0), (0, 0, 254)


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def decoded(data: bytes, most: int = HIGH) -> Image.Image:
    return Picture(data, most).decode()


def half_red() -> Image.Image:
    """Make a picture that is red on its left side and blue on its right."""
    picture = Image.new("RGB", (64, 32), BLUE)
    picture.paste(RED, (0, 0, 32, 32))
    return picture


def near(pixel: Any, colour: tuple[int, int, int]) -> bool:
    return all(abs(one - other) < 8 for one, other in zip(pixel, colour, strict=True))


# Which corner the first pixel is in, left to right and top to bottom, by EXIF's orientation.
CORNERS = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("most", [LOW, HIGH])
def test_a_picture_is_seen_the_right_way_up(kind: str, orientation: int, most: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture = Image.new("RGB", (1024, 512), BLUE)
    picture.paste(RED, (0, 0, 512, 256))
    seen = decoded(saved(picture, kind, exif=exif), most)
    at = {(x, y): (x * (seen.width - 1), y * (seen.height - 1)) for x in (0, 1) for y in (0, 1)}

    assert (seen.width > seen.height) == (orientation < 5)
    assert [corner for corner in at if near(seen.getpixel(at[corner]), RED)] == [CORNERS[orientation]]


def test_a_picture_with_damaged_exif_data_is_seen_as_it_is() -> None:
    seen = decoded(saved(half_red(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffnonsense"))

    assert near(seen.getpixel((1, 16)), RED)


def test_what_shows_through_is_white() -> None:
    picture = Image.new("RGBA", (32, 32), (0, 0, 255, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 16, 32))
    seen = decoded(saved(picture))

    assert (seen.getpixel((8, 8)), seen.getpixel((24, 8))) == ((255, 0, 0), (255, 255, 255))


def test_what_a_palette_says_shows_through_is_white() -> None:
    picture = half_red().quantize(4)
    seen = decoded(saved(picture, "GIF", transparency=picture.getpixel((60, 16))))

    assert near(seen.getpixel((4, 16)), RED)
    assert seen.getpixel((60, 16)) == (255, 255, 255)


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "L"), ("PNG", "1"), ("PNG", "LA"), ("JPEG", "L"), ("GIF", "L")])
def test_grey_is_grey(kind: str, mode: str) -> None:
    seen = decoded(saved(Image.new("L", (32, 32), 255).convert(mode), kind))

    assert (seen.mode, seen.getpixel((9, 9))) == ("RGB", (255, 255, 255))


def test_sixteen_bits_are_scaled_to_eight() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    seen = decoded(saved(Image.fromarray(np.tile(ramp, (16, 1)))))

    np.testing.assert_allclose(np.asarray(seen)[0, :, 0], np.arange(256), atol=1)


def test_inks_become_light() -> None:
    seen = decoded(saved(half_red().convert("CMYK"), "JPEG"))

    assert near(seen.getpixel((4, 16)), RED)
    assert near(seen.getpixel((60, 16)), BLUE)


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_of_an_animation_the_first_frame_is_seen(kind: str) -> None:
    first, second = Image.new("RGB", (32, 32), RED), Image.new("RGB", (32, 32), BLUE)

    assert near(decoded(saved(first, kind, save_all=True, append_images=[second])).getpixel((9, 9)), RED)


@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.stem)
@pytest.mark.parametrize(("most", "times"), [(LOW, 3), (AUTO, 8)])
def test_a_photograph_that_is_decoded_smaller_looks_the_same(path: Path, most: int, times: int) -> None:
    with Image.open(path) as file:
        data = saved(file.resize((file.width * times, file.height * times)), "JPEG", quality=90)
    picture = Picture(data, most)
    small, whole = picture.decode(), decoded(data, HIGH)
    ours, full = cut(small, picture.resized).pixels, cut(whole, picture.resized).pixels

    assert 2 * picture.resized[0] <= small.width <= whole.width // 2
    # One of 255 levels is about 0.0146 here.
    assert np.abs(ours - full).mean() < 0.4 * 0.0146


def test_at_high_detail_no_pixel_is_left_out() -> None:
    assert decoded(saved(Image.new("RGB", (6000, 4000)), "JPEG"), HIGH).size == (6000, 4000)


@given(st.integers(16, 900), st.integers(16, 900), st.sampled_from([LOW, AUTO, HIGH]), st.sampled_from([1, 6]))
def test_tokens_are_known_from_the_header(width: int, height: int, most: int, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture = Picture(saved(Image.new("RGB", (width, height)), "JPEG", exif=exif), most)
    prepared = cut(picture.decode(), picture.resized)

    assert prepared.tokens == picture.tokens
    assert prepared.pixels.nbytes == picture.crop_bytes


BOMB = saved(Image.new("1", (20_000, 10_000)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\xff\xd8\xff",
        PHOTOGRAPH[: len(PHOTOGRAPH) // 2],
        saved(half_red())[:-40],
        saved(half_red(), "BMP"),
        saved(half_red(), "TIFF"),
        saved(half_red(), "WEBP"),
        b"%PDF-1.7\n" + PHOTOGRAPH,
        BOMB,
    ],
    ids=["nothing", "text", "three bytes", "half", "no end", "bmp", "tiff", "webp", "polyglot", "bomb"],
)
def test_what_is_no_whole_picture_is_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(JobError) as refused:
        decoded(data)

    assert refused.value.code == Code.BAD_REQUEST
    assert refused.value.message == "the picture is damaged and cannot be decoded: send it again, whole"


FILES = [
    saved(half_red(), "JPEG"),
    saved(half_red(), "JPEG", progressive=True),
    saved(half_red().convert("CMYK"), "JPEG"),
    saved(half_red()),
    saved(half_red().quantize(4)),
    saved(half_red(), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 32), RED)]),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a file with some bytes changed, and perhaps its end cut off."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for at, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=8)):
        data[at] = value
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@given(st.binary(max_size=200) | damaged(), st.sampled_from([LOW, HIGH]))
def test_whatever_comes_is_a_picture_or_refused(data: bytes, most: int) -> None:
    try:
        seen = decoded(data, most)
    except JobError:
        return
    assert seen.mode == "RGB"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_nothing_is_decoded_before_it_is_asked_for(kind: str) -> None:
    file = Picture(saved(Image.new("RGB", (64, 64)), kind), 1)._file
    assert isinstance(file, ImageFile.ImageFile)
    assert file.tile  # what is still to be decoded


def test_a_progressive_jpeg_counts_what_is_kept_of_all_of_it() -> None:
    large = Image.new("RGB", (1024, 1024))
    plain, progressive = (saved(large, "JPEG", progressive=each) for each in (False, True))
    assert Picture(progressive, 1).bytes - Picture(plain, 1).bytes >= 6 * 1024 * 1024
