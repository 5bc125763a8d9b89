"""The inference process with a mistake in how it prepares pictures: ``channels``, ``crops`` or ``pictures``.

What a model still gets right in spite of the mistake shows how much its right answers prove.
"""

import sys
from collections.abc import Sequence

import numpy as np
import onnxruntime_genai as og  # type: ignore[import-untyped]
from PIL import Image

from agent.engines.worker import __main__ as worker
from agent.engines.worker import crops, model, scheduler, vision


def _swapped_channels(picture: Image.Image, size: tuple[int, int]) -> crops.Crops:
    found = crops.cut(picture, size)
    return found._replace(pixels=np.ascontiguousarray(found.pixels[:, ::-1]))


def _shuffled_crops(picture: Image.Image, size: tuple[int, int]) -> crops.Crops:
    """Put every crop in another's place, and leave the view of the whole where it is."""
    found = crops.cut(picture, size)
    count = len(found.pixels) - 1
    random = np.random.default_rng(count)
    order = np.arange(count)
    while count > 1 and (order == np.arange(count)).any():
        random.shuffle(order)
    return found._replace(pixels=np.concatenate([found.pixels[:1], found.pixels[1:][order]]))


def _exchanged_pictures(tokens: Sequence[int], pictures: Sequence[crops.Crops]) -> og.NamedTensors:
    return vision.inputs(tokens, pictures[::-1])


if __name__ == "__main__":
    match sys.argv.pop(1):
        case "channels":
            scheduler.cut = _swapped_channels  # type: ignore[attr-defined]
        case "crops":
            scheduler.cut = _shuffled_crops  # type: ignore[attr-defined]
        case "pictures":
            model.inputs = _exchanged_pictures  # type: ignore[attr-defined]
    sys.exit(worker.main())
