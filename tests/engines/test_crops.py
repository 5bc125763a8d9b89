from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.engines.worker.crops import SIDE, nbytes, padded, prepare, resized, tokens

sides = st.integers(1, 20_000)
mosts = st.integers(1, 40)


@given(sides, sides, mosts)
def test_a_picture_becomes_as_large_as_its_crops_allow(width: int, height: int, most: int) -> None:
    ratio = max(width, height) / min(width, height)
    allowed = [scale for scale in range(1, most + 2) if scale * ceil(scale / ratio) <= most]
    until_the_first_gap = next(scale for scale in range(1, most + 2) if scale + 1 not in allowed)

    assert max(resized(width, height, most)) == until_the_first_gap * SIDE


@given(sides, sides, mosts)
def test_a_picture_has_no_more_crops_than_it_may(width: int, height: int, most: int) -> None:
    across, down = padded(*resized(width, height, most))

    assert 1 <= (across // SIDE) * (down // SIDE) <= most


@given(sides, sides, mosts)
def test_a_picture_keeps_its_shape(width: int, height: int, most: int) -> None:
    new = resized(width, height, most)
    long, short = max(width, height), min(width, height)

    assert min(new) in (max(new) * short // long, max(max(new) * short // long - 1, 1), 1)
    assert resized(height, width, most) == new[::-1]


@pytest.mark.parametrize(
    ("height", "width", "count"), [(336, 336, 313), (1344, 1344, 2509), (1008, 1344, 1921), (1344, 1008, 1933)]
)
def test_a_picture_is_as_many_tokens_as_the_models_authors_say(height: int, width: int, count: int) -> None:
    assert tokens(height, width) == count


@pytest.mark.parametrize(
    ("size", "most", "crops"),
    [((640, 480), 1, (1, 1)), ((640, 480), 4, (2, 2)), ((1920, 1080), 16, (3, 5)), ((1080, 1920), 16, (5, 3))],
)
def test_common_frames_become_so_many_rows_and_columns(
    size: tuple[int, int], most: int, crops: tuple[int, int]
) -> None:
    prepared = prepare(Image.new("RGB", size), most)

    assert (prepared.height // SIDE, prepared.width // SIDE) == crops
    assert prepared.pixels.shape == (1 + crops[0] * crops[1], 3, SIDE, SIDE)
    assert prepared.pixels.nbytes == nbytes(prepared.width, prepared.height)


def test_crops_are_in_order_row_by_row_after_the_whole() -> None:
    numbers = np.arange(6, dtype=np.uint8).reshape(2, 3).repeat(SIDE, axis=0).repeat(SIDE, axis=1)
    _, *crops = prepare(Image.fromarray(numbers * 40).convert("RGB"), 6).pixels

    assert np.argsort([crop.mean() for crop in crops]).tolist() == [0, 1, 2, 3, 4, 5]


def test_pixels_are_red_green_and_blue_less_clips_mean_over_its_deviation() -> None:
    pixels = prepare(Image.new("RGB", (SIDE, SIDE), (255, 51, 0)), 1).pixels

    expected = ((1 - 0.48145466) / 0.26862954, (0.2 - 0.4578275) / 0.26130258, -0.40821073 / 0.27577711)
    np.testing.assert_allclose(pixels[0].mean(axis=(1, 2)), expected, rtol=1e-5)


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_missing_to_a_whole_crop_is_white_on_both_sides(*, turned: bool) -> None:
    picture = Image.new("RGB", (336, 100) if not turned else (100, 336), "black")
    whole = prepare(picture, 1).pixels[0, 0]
    line = whole[:, 168] if not turned else whole[168]

    dark = np.flatnonzero(line < 0)
    assert (dark[0], dark[-1]) == (118, 217)
    assert line[0] == line[-1] == pytest.approx((1 - 0.48145466) / 0.26862954)


def test_of_a_picture_of_one_crop_the_whole_is_that_crop() -> None:
    whole, crop = prepare(Image.radial_gradient("L").convert("RGB"), 1).pixels

    np.testing.assert_array_equal(whole, crop)
