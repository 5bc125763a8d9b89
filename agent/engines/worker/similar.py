"""Whether a camera's frame shows what its last one showed.

The hash is the DCT one (pHash), and not the cheaper differences of neighbours (dHash). Measured on seven photographs of
1280 x 720: new sensor noise and JPEG compression change 0 to 2 of its bits, a person of 5 % of the width walking in
changes 2 to 10. With dHash it is 0 to 2 against 0 to 4, and no threshold tells the two apart.
"""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from PIL import Image

# The hash looks at a picture of so many pixels a side, and at its lowest frequencies, so many each way.
_SIDE, _LOW = 32, 8
_COSINES = np.cos(np.pi / _SIDE * np.outer(np.arange(_LOW), np.arange(_SIDE) + 0.5))
# Far more cameras than a box can serve: at a frame a second each, it would look at each every few minutes.
_CAMERAS = 256


def perceptual_hash(picture: Image.Image) -> int:
    """Return 64 bits, of which few differ between pictures that look alike."""
    # Colour goes first from a picture of 1024 pixels, not of millions. A box filter is a mean: noise cancels out.
    small = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX).convert("L")
    low = _COSINES @ np.asarray(small, dtype=np.float64) @ _COSINES.T
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes())


class Look(NamedTuple):
    """A camera, a hash of what is asked about its frame, and the perceptual hash of what the frame shows."""

    camera: str
    question: int
    sight: int


class LastLooks:
    """What the model saw when it last looked at each camera's frame.

    A new question is worth a look at an old sight.
    """

    def __init__(self) -> None:
        self._looks: OrderedDict[str, Look] = OrderedDict()

    def __repr__(self) -> str:
        return f"<LastLooks at {len(self._looks)} cameras>"

    def similar(self, look: Look, bits: int) -> bool:
        """Return whether at most ``bits`` of the sight differ from the camera's last one, and the question is its."""
        last = self._looks.get(look.camera)
        return last is not None and last.question == look.question and (last.sight ^ look.sight).bit_count() <= bits

    def add(self, look: Look) -> None:
        """Take note of a look."""
        self._looks[look.camera] = look
        self._looks.move_to_end(look.camera)
        if len(self._looks) > _CAMERAS:
            self._looks.popitem(last=False)
