"""From a file that a stranger sent to an RGB picture the right way up."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from agent.contract.errors import Code, JobError
from agent.contract.pictures import FORMATS
from agent.engines.worker import crops

# From this many crops on, every pixel counts: the tensors are then those of the library's own processor.
_ALL_CROPS = 16
# By EXIF's number, what brings the picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
# Pillow keeps four bytes a pixel, and has the picture up to three times while it converts or turns it.
_PIXEL_BYTES = 12
# Of a progressive JPEG, libjpeg keeps all coefficients, of the whole picture at whatever size it is decoded.
_COEFFICIENT_BYTES = 6


class Picture:
    """A picture whose header was read.

    Args:
        data: a JPEG, PNG or GIF file. The parent has judged its header; here anything may come.
        most: how many crops it is cut into at the most.

    Attributes:
        resized: to what width and height it is resized, upright.
        tokens: how many of the prompt's tokens it is.
        bytes: memory that decoding it takes, at the most.
        crop_bytes: memory of its crops.

    Raises:
        JobError: it is no such file.

    """

    def __init__(self, data: bytes, most: int) -> None:
        with _refusing():
            self._file: Image.Image = Image.open(BytesIO(data), formats=FORMATS)
            pixels = self._file.width * self._file.height
            orientation = _orientation(self._file)
            self._turn = _TURNS.get(orientation)
            sideways = orientation in _SIDEWAYS
            width, height = self._file.size[::-1] if sideways else self._file.size
            self.resized = crops.resized(width, height, most)
            if most < _ALL_CROPS and isinstance(self._file, JpegImageFile):
                # A large JPEG is decoded at a half, a quarter or an eighth, still at least twice as wide as it is to
                # be: 8 ms and not 15 for 1920 x 1080 and one crop, and after the resize 0.2 of 255 levels away on
                # average. Decoded at its final size it would take 6 ms, and be 0.6 away.
                width, height = self.resized[::-1] if sideways else self.resized
                self._file.draft(None, (2 * width, 2 * height))
        self.bytes = self._file.width * self._file.height * _PIXEL_BYTES
        if self._file.info.get("progressive"):
            self.bytes += pixels * _COEFFICIENT_BYTES
        width, height = crops.padded(*self.resized)
        self.crop_bytes = crops.nbytes(width, height)
        self.tokens = crops.tokens(height, width)

    def __repr__(self) -> str:
        return f"<Picture {self._file.format} {self._file.size}, {self.tokens} tokens>"

    def decode(self) -> Image.Image:
        """Return it in RGB, upright; of an animation, the first frame. To be called once.

        Raises:
            JobError: it cannot be read to its end.

        """
        with _refusing():
            picture = _rgb(self._file)
            # Pillow keeps what it decoded in the file; the pictures of a job would otherwise all be there at once.
            self._file = Image.new("L", (0, 0))
            return picture if self._turn is None else picture.transpose(self._turn)


def _orientation(file: Image.Image) -> int:
    # A picture whose EXIF data are damaged is still a picture.
    with suppress(Exception):
        # Not the PNG's own, which decodes the whole picture to look for EXIF data behind it.
        return int(Image.Image.getexif(file).get(ExifTags.Base.Orientation, 1))
    return 1


def _rgb(file: Image.Image) -> Image.Image:
    file.load()
    if file.mode.startswith("I"):
        # Sixteen bits of grey; Pillow's own conversion makes white of all but the darkest.
        file = Image.fromarray((np.asarray(file) >> 8).astype(np.uint8))
    if not file.has_transparency_data:
        return file.convert("RGB")
    picture = Image.new("RGBA", file.size, "white")
    picture.alpha_composite(file.convert("RGBA"))
    return picture.convert("RGB")


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn whatever Pillow raises into a refusal.

    Raises:
        JobError: the picture cannot be read.

    """
    try:
        with warnings.catch_warnings():
            # It warns of sizes, which were judged, and of what it put right.
            warnings.simplefilter("ignore")
            yield
    except MemoryError:
        raise JobError(
            Code.OUT_OF_MEMORY, "the box has no memory left to decode the picture: send a smaller one, or try again"
        ) from None
    except Exception:  # noqa: BLE001  its parsers raise whatever they trip over
        raise JobError(Code.BAD_REQUEST, "the picture is damaged and cannot be decoded: send it again, whole") from None
