"""Pictures of coloured shapes, and what can be said of them: all that the test model `shapes-vision` knows.

It was trained on them, tests examine it on others of them, and the demo shows one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

# Swapping the channels makes blue of red and cyan of yellow, so a mistake there is a wrong answer.
COLOURS = {
    "red": (215, 35, 35),
    "green": (35, 165, 35),
    "blue": (35, 35, 215),
    "yellow": (225, 205, 35),
    "cyan": (35, 205, 225),
}
SHAPES = ("circle", "square", "triangle")
PLACES = ("top left", "top right", "bottom left", "bottom right")
SIZES = ((640, 480), (800, 600), (640, 360), (1280, 720), (512, 512), (480, 640), (360, 640))
"""Width and height in pixels."""
NO_PICTURE = "there is no picture"

_COUNTS = ("a", "two", "three", "four")
_NUMBERS = {1: 70, 2: 10, 3: 10, 4: 10}
"""How many shapes a picture has, by weight. Only one alone has its place named, and is what tells crops in disorder."""
# Of the picture's longer side. The least is 64 pixels where a picture is a single crop of 336.
_DIAMETERS = (0.19, 0.25)


@dataclass(frozen=True)
class Shape:
    """A shape in a picture: its kind and the square that it fills, in pixels."""

    kind: str
    left: int
    top: int
    diameter: int

    def paint(self, image: Image.Image, colour: tuple[int, int, int]) -> None:
        """Draw it."""
        draw = ImageDraw.Draw(image)
        right, bottom = self.left + self.diameter, self.top + self.diameter
        match self.kind:
            case "circle":
                draw.ellipse((self.left, self.top, right, bottom), fill=colour)
            case "square":
                draw.rectangle((self.left, self.top, right, bottom), fill=colour)
            case _:
                peak = (self.left + self.diameter // 2, self.top)
                draw.polygon((peak, (right, bottom), (self.left, bottom)), fill=colour)


@dataclass(frozen=True)
class Drawn:
    """A picture and what is in it.

    Attributes:
        image: RGB.
        colour: of its shapes, all the same.
        shapes: one to four, all of one kind, each in a quarter of its own.
        places: the quarters, in the order of `PLACES`.

    """

    image: Image.Image
    colour: str
    shapes: tuple[Shape, ...]
    places: tuple[str, ...]

    @property
    def caption(self) -> str:
        """What is to be said of it: ``a red circle at the top left``, or ``three blue squares``."""
        what = f"{_COUNTS[len(self.shapes) - 1]} {self.colour} {self.shapes[0].kind}"
        return f"{what} at the {self.places[0]}" if len(self.shapes) == 1 else f"{what}s"


def answer(captions: Sequence[str]) -> str:
    """Return the right answer to a prompt with the pictures of these captions, in their order."""
    if not captions:
        return NO_PICTURE
    if len(captions) == 1:
        return captions[0]
    return "; ".join(f"image {number}: {caption}" for number, caption in enumerate(captions, 1))


def draw(random: Random, size: tuple[int, int] | None = None) -> Drawn:
    """Draw a picture of this width and height, or of any of `SIZES`. The same ``random`` draws the same."""
    width, height = size or random.choice(SIZES)
    colour, kind = random.choice(tuple(COLOURS)), random.choice(SHAPES)
    (number,) = random.choices(tuple(_NUMBERS), tuple(_NUMBERS.values()))
    quarters = sorted(random.sample(range(len(PLACES)), number))
    image = _background(random, width, height)
    paint = _varied(random, COLOURS[colour], 25)
    shapes = tuple(_shape(random, kind, quarter, width, height) for quarter in quarters)
    for shape in shapes:
        shape.paint(image, paint)
    return Drawn(image, colour, shapes, tuple(PLACES[quarter] for quarter in quarters))


def _background(random: Random, width: int, height: int) -> Image.Image:
    """Return a grey wall, unevenly lit."""
    grey = random.randint(60, 230)
    light = Image.frombytes("L", (6, 5), bytes(grey + random.randint(-20, 20) for _ in range(30)))
    shades = light.resize((width, height), Image.Resampling.BICUBIC)
    return Image.merge(
        "RGB",
        [
            shades.point([max(0, min(255, level + tint)) for level in range(256)])
            for tint in _varied(random, (0, 0, 0), 6, least=-6)
        ],
    )


def _varied(random: Random, colour: Sequence[int], by: int, least: int = 0) -> tuple[int, int, int]:
    red, green, blue = (max(least, min(255, level + random.randint(-by, by))) for level in colour)
    return red, green, blue


def _shape(random: Random, kind: str, quarter: int, width: int, height: int) -> Shape:
    """Put a shape somewhere inside a quarter of the picture."""
    room = min(width, height) // 2
    least, most = (round(part * max(width, height)) for part in _DIAMETERS)
    diameter = random.randint(least, min(most, round(0.94 * room)))
    left = quarter % 2 * (width // 2) + random.randint(0, width // 2 - diameter)
    top = quarter // 2 * (height // 2) + random.randint(0, height // 2 - diameter)
    return Shape(kind, left, top, diameter)
