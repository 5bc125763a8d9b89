"""Examine the exported model with onnxruntime-genai: held-out pictures, and pictures spoilt in three ways."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import onnxruntime_genai as og
from PIL import Image

from agent.engines.worker.crops import Crops, prepare, tokens
from agent.models import shapes
from scripts.train_shapes_vision import tokenizer as language
from scripts.train_shapes_vision.data import DETAILS, FOUR_BY_THREE
from scripts.train_shapes_vision.decoder import prompt

Spoil = Callable[[list[Crops], Random], list[Crops]]


@dataclass(frozen=True)
class Exam:
    """What to show: how many prompts of how many pictures, and what to do to the pictures before and after cutting."""

    title: str
    images: int
    share: float
    swap: bool = False
    spoil: Spoil | None = None


class Examined:
    """The exported folder, loaded."""

    def __init__(self, folder: Path) -> None:
        self._model = og.Model(str(folder))
        self._tokenizer = og.Tokenizer(self._model)

    def answer(self, pictures: Sequence[Crops], question: str = "What is in the picture?") -> str:
        """Return the greedy answer."""
        first, *pieces = language.IMAGE_TAG.split(prompt(question, len(pictures)))
        ids = list(self._tokenizer.encode(first))
        for number, (picture, piece) in enumerate(zip(pictures, pieces, strict=True), 1):
            ids += [-number] * tokens(picture.height, picture.width) + list(self._tokenizer.encode(piece))
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=len(ids) + 48, do_sample=False)
        generator = og.Generator(self._model, params)
        if pictures:
            generator.set_inputs(_tensors(ids, pictures))
        else:
            generator.append_tokens(np.array(ids, np.int32))
        before = generator.token_count()
        while not generator.is_done():
            generator.generate_next_token()
        return self._tokenizer.decode(generator.get_sequence(0)[before:]).strip()


def _tensors(ids: Sequence[int], pictures: Sequence[Crops]) -> og.NamedTensors:
    most = max(len(picture.pixels) for picture in pictures)
    pixels = np.zeros((len(pictures), most, *pictures[0].pixels.shape[1:]), np.float32)
    for place, picture in zip(pixels, pictures, strict=True):
        place[: len(picture.pixels)] = picture.pixels
    sizes = [(picture.height, picture.width) for picture in pictures]
    arrays = {
        "input_ids": np.array([ids], np.int32),
        "pixel_values": pixels,
        "image_sizes": np.array(sizes, np.int64),
        "num_image_tokens": np.array([[tokens(*size)] for size in sizes], np.int64),
    }
    named = og.NamedTensors()
    for name, array in arrays.items():
        named[name] = og.Tensor(array)
    return named


def shuffled(pictures: list[Crops], random: Random) -> list[Crops]:
    """Put every crop in another's place; the global view stays."""
    spoilt = []
    for picture in pictures:
        order = list(range(1, len(picture.pixels)))
        while any(place == crop for place, crop in enumerate(order, 1)):
            random.shuffle(order)
        spoilt.append(picture._replace(pixels=picture.pixels[[0, *order]]))
    return spoilt


def exchanged(pictures: list[Crops], _: Random) -> list[Crops]:
    """Put the pictures in the other order."""
    return pictures[::-1]


EXAMS = (
    Exam("one picture", 1, 1.0),
    Exam("its channels swapped", 1, 0.5, swap=True),
    Exam("its crops shuffled", 1, 0.5, spoil=shuffled),
    Exam("two pictures", 2, 0.5),
    Exam("the two exchanged", 2, 0.25, spoil=exchanged),
)


def evaluate(folder: Path, count: int = 200) -> str:
    """Return a table of how many answers are exactly right, by detail."""
    examined = Examined(folder)
    lines = [f"| | {' | '.join(DETAILS)} |", f"|---|{'---|' * len(DETAILS)}"]
    for exam in EXAMS:
        of = round(exam.share * count)
        cells = []
        for detail in DETAILS:
            if exam.spoil is shuffled and detail == "low":
                cells.append("(one crop)")
                continue
            right = sum(_right(examined, exam, detail, number) for number in range(of))
            cells.append(f"{100 * right / of:.1f} % of {of}")
        lines.append(f"| {exam.title} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    lines.append(f"\nWithout a picture: {examined.answer([])}.")
    return "\n".join(lines)


def _right(examined: Examined, exam: Exam, detail: str, number: int) -> bool:
    random = Random(f"held out: {exam.images} {number}")  # noqa: S311 - nothing is secret here
    sizes = FOUR_BY_THREE if exam.images > 1 and detail == "high" else shapes.SIZES
    drawn = [shapes.draw(random, random.choice(sizes)) for _ in range(exam.images)]
    pictures = [prepare(_swapped(each.image) if exam.swap else each.image, DETAILS[detail]) for each in drawn]
    if exam.spoil:
        pictures = exam.spoil(pictures, random)
    return examined.answer(pictures) == shapes.answer([each.caption for each in drawn])


def _swapped(image: Image.Image) -> Image.Image:
    """Take red for blue."""
    return Image.merge("RGB", image.split()[::-1])
