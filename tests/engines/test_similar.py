from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from agent.engines.worker.similar import LastLooks, Look, perceptual_hash
from tests.engines.running import PHOTOGRAPHS


def photograph(path: Path) -> Image.Image:
    with Image.open(path) as file:
        return file.convert("RGB").resize((1280, 720))


def seen_again(picture: Image.Image) -> Image.Image:
    """Return the same sight with a sensor's new noise, compressed again."""
    noise = np.random.default_rng(1).normal(0, 6, (picture.height, picture.width, 3))
    file = BytesIO()
    Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=75)
    return Image.open(file)


def differing(one: Image.Image, other: Image.Image) -> int:
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_noise_changes_hardly_a_bit(path: Path) -> None:
    picture = photograph(path)

    assert differing(picture, seen_again(picture)) <= 2


@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_somebody_who_comes_into_sight_changes_more(path: Path) -> None:
    picture = photograph(path)
    ImageDraw.Draw(visited := picture.copy()).rectangle((400, 300, 528, 500), fill=(40, 30, 60))

    assert differing(picture, seen_again(visited)) >= 4


def test_other_sights_have_other_hashes() -> None:
    one, other, *_ = (photograph(path) for path in PHOTOGRAPHS)

    assert differing(one, other) > 16


def test_a_hash_is_64_bits_whatever_the_size() -> None:
    assert 0 <= perceptual_hash(Image.new("RGB", (16, 16))) < 2**64


def test_a_sight_is_similar_up_to_so_many_bits() -> None:
    looks = LastLooks()
    looks.add(Look("porch", 1, 0b1111))

    assert looks.similar(Look("porch", 1, 0b1100), 2)
    assert not looks.similar(Look("porch", 1, 0b1000), 2)


def test_a_camera_is_compared_with_itself_alone() -> None:
    looks = LastLooks()
    looks.add(Look("porch", 1, 0))

    assert not looks.similar(Look("garden", 1, 0), 64)


def test_a_new_question_is_worth_a_look_at_an_old_sight() -> None:
    looks = LastLooks()
    looks.add(Look("porch", 1, 0))

    assert not looks.similar(Look("porch", 2, 0), 64)


def test_many_cameras_leave_no_more_than_the_last_ones_behind() -> None:
    looks = LastLooks()
    for camera in range(1000):
        looks.add(Look(str(camera), 1, 0))

    assert len(looks._looks) == 256
    assert looks.similar(Look("999", 1, 0), 0)
    assert not looks.similar(Look("0", 1, 0), 0)
