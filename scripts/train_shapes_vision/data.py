"""Pictures prepared for training: crops, and for each of their tokens whether it shows a shape."""

import io
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from agent.engines.worker import crops
from agent.models import shapes
from scripts.train_shapes_vision.model import MERGED

DETAILS = {"low": 1, "auto": 4, "high": 16}
"""How many crops a picture is cut into at most."""
COLOURS = tuple(shapes.COLOURS)
FOUR_BY_THREE = ((640, 480), (800, 600))
"""The sizes of which two at high detail fit the context."""
# What share of a token's 28 by 28 pixels is the shape's, at least, for the token to show it.
_SHAPE = 0.2
# How many pictures have been a JPEG.
_JPEG = 0.5
# CLIP's, as in the product.
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32).reshape(3, 1, 1)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32).reshape(3, 1, 1)


@dataclass(frozen=True)
class Example:
    """A prepared picture.

    Attributes:
        caption: what is to be said of it.
        colour: of its shapes, a number of `COLOURS`.
        kind: of its shapes, a number of `shapes.SHAPES`.
        occupied: which quarters have one.
        size: padded height and width, in pixels.
        crops: uint8 [1 + crops, 3, 336, 336], the global view first.
        outline: uint8 [1 + crops, 144, 16], how much (of 255) of each sixteenth of a token is covered by a shape.

    """

    caption: str
    colour: int
    kind: int
    occupied: tuple[bool, ...]
    size: tuple[int, int]
    crops: NDArray[np.uint8]
    outline: NDArray[np.uint8]

    @property
    def shape(self) -> NDArray[np.bool_]:
        """Tell the tokens that show a shape, [1 + crops, 144]."""
        shown: NDArray[np.bool_] = self.outline.mean(-1) > _SHAPE * 255
        return shown


def examples(random: Random, detail: str, count: int) -> Iterator[Example]:
    """Draw and prepare pictures, in two processes."""
    tasks = [(random.getrandbits(64), detail) for _ in range(count)]
    # Made here, the large arrays that come and go between those that stay would leave 20 GB of holes in the heap.
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield from pool.imap(_example, tasks, chunksize=8)


def _example(task: tuple[int, str]) -> Example:
    seed, detail = task
    random = Random(seed)  # noqa: S311 - nothing is secret here
    drawn = shapes.draw(random)
    image = drawn.image
    if random.random() < _JPEG:
        image = jpeg(image, random.randint(60, 95))
    prepared = crops.prepare(image, DETAILS[detail])
    mask = Image.new("RGB", image.size, "white")
    for shape in drawn.shapes:
        shape.paint(mask, (0, 0, 0))
    covered = 1 - crops.prepare(mask, DETAILS[detail]).pixels[:, 0] * _STD[0] - _MEAN[0]
    cells = covered.reshape(-1, MERGED, 4, 7, MERGED, 4, 7).mean((3, 6)).clip(0, 1)
    return Example(
        drawn.caption,
        COLOURS.index(drawn.colour),
        shapes.SHAPES.index(drawn.shapes[0].kind),
        tuple(place in drawn.places for place in shapes.PLACES),
        (prepared.height, prepared.width),
        np.rint((prepared.pixels * _STD + _MEAN).clip(0, 1) * 255).astype(np.uint8),
        np.rint(cells.transpose(0, 1, 3, 2, 4).reshape(-1, MERGED**2, 16) * 255).astype(np.uint8),
    )


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Return the picture after a JPEG of this quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def normalised(levels: Tensor) -> Tensor:
    """Return uint8 crops as the tower takes them."""
    return (levels.float() / 255 - torch.from_numpy(_MEAN)) / torch.from_numpy(_STD)
