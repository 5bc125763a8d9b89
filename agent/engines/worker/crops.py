"""From a picture to what Phi-3.5-vision's vision tower takes: a view of the whole, and crops of 336 x 336 pixels.

This is the model's own HD transform (`processing_phi3_v.py` in microsoft/Phi-3.5-vision-instruct), with the number of
crops left to the caller. The library's own processor always cuts 16, and every crop costs 144 tokens of prefill.
"""

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels: TypeAlias = NDArray[np.float32]

SIDE = 336
# A crop's 24 x 24 patches, merged two by two, and as many rows of them, each with a separator at its end.
_CROP_TOKENS = 144
_ROW_TOKENS = 12
# CLIP's, by channel.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class Crops(NamedTuple):
    """A picture as the vision tower takes it.

    Attributes:
        pixels: ``[1 + rows * columns, 3, 336, 336]``, normalised RGB: the whole picture, then its crops row by row.
        height: of the picture that the crops make up, in pixels; a multiple of 336.
        width: the same.

    """

    pixels: Pixels
    height: int
    width: int

    @property
    def tokens(self) -> int:
        """How many of the prompt's tokens the picture is."""
        return tokens(self.height, self.width)


def resized(width: int, height: int, most: int) -> tuple[int, int]:
    """Return the width and height to which a picture is resized before it is padded and cut.

    Its longer side becomes as many crops long as ``most`` crops, at least one, allow for both sides together.
    """
    if width < height:
        return resized(height, width, most)[::-1]
    ratio = width / height
    scale = 1
    while (scale + 1) * math.ceil((scale + 1) / ratio) <= most:
        scale += 1
    return scale * SIDE, max(int(scale * SIDE / ratio), 1)


def tokens(height: int, width: int) -> int:
    """Return how many of the prompt's tokens a picture with crops of this height and width is."""
    rows, columns = height // SIDE, width // SIDE
    return (rows * columns + 1) * _CROP_TOKENS + 1 + (rows + 1) * _ROW_TOKENS


def padded(width: int, height: int) -> tuple[int, int]:
    """Return the width and height of the whole crops that a resized picture is padded to."""
    return -(-width // SIDE) * SIDE, -(-height // SIDE) * SIDE


def nbytes(width: int, height: int) -> int:
    """Return the size of the pixels of a picture that is padded to this width and height, in bytes."""
    return (1 + width * height // SIDE**2) * 3 * SIDE**2 * np.dtype(np.float32).itemsize


def prepare(picture: Image.Image, most: int) -> Crops:
    """Resize an RGB picture, pad it with white, and cut it into ``most`` crops at the most, at least one."""
    return cut(picture, resized(*picture.size, most))


def cut(picture: Image.Image, size: tuple[int, int]) -> Crops:
    """Do the same where the width and height to which the picture is resized are known."""
    small = picture.resize(size, Image.Resampling.BILINEAR)
    whole = Image.new("RGB", padded(*size), "white")
    whole.paste(small, ((whole.width - small.width) // 2, (whole.height - small.height) // 2))
    rows, columns = whole.height // SIDE, whole.width // SIDE
    pixels = np.empty((1 + rows * columns, 3, SIDE, SIDE), dtype=np.float32)
    crops = pixels[1:].reshape(rows, columns, 3, SIDE, SIDE)
    for channel, (mean, std) in enumerate(zip(_MEAN, _STD, strict=True)):
        # In place and in the library's order: its floats to the last bit, in a third of a lookup table's time.
        plane = np.asarray(whole)[:, :, channel].astype(np.float32)
        plane /= 255
        plane -= mean
        plane /= std
        crops[:, :, channel] = plane.reshape(rows, SIDE, columns, SIDE).swapaxes(1, 2)
        # Resized after normalising, where bicubic overshoot is not clipped, as the library does it.
        pixels[0, channel] = np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return Crops(pixels, whole.height, whole.width)
