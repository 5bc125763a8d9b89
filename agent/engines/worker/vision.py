"""Pictures in a prompt, as the library's `phi3v` pipeline takes them."""

import json
from collections.abc import Sequence

import numpy as np
import onnxruntime_genai as og  # type: ignore[import-untyped]

from agent.engines.worker.crops import SIDE, Crops


def marked(conversation: bytes, mark: str) -> str:
    """Return a conversation with texts for contents, as chat templates take it, and ``mark`` for each picture.

    A picture is on a line of its own, as in all that the model learnt from.
    """
    turns = json.loads(conversation)
    for turn in turns:
        parts = turn["content"]
        if not isinstance(parts, str):
            text = "\n".join(mark if part is None else part for part in parts)
            turn["content"] = text + "\n" * (parts[-1] is None)
    return json.dumps(turns, ensure_ascii=False)


def inputs(tokens: Sequence[int], pictures: Sequence[Crops]) -> og.NamedTensors:
    """Return what a generator of a `phi3v` model takes instead of tokens alone; all of it is copied.

    Args:
        tokens: those of picture k, from 1 on, are -k.
        pictures: in that order, at least one.

    """
    most = max(len(picture.pixels) for picture in pictures)
    pixels = np.zeros((len(pictures), most, 3, SIDE, SIDE), dtype=np.float32)
    for row, picture in zip(pixels, pictures, strict=True):
        row[: len(picture.pixels)] = picture.pixels
    counts = [picture.tokens for picture in pictures]
    arrays = {
        "input_ids": np.array([tokens], dtype=np.int32),
        "pixel_values": pixels,
        "image_sizes": np.array([(picture.height, picture.width) for picture in pictures], dtype=np.int64),
        "num_image_tokens": np.array(counts, dtype=np.int64)[:, np.newaxis],
    }
    tensors = og.NamedTensors()
    for name, array in arrays.items():
        tensors[name] = og.Tensor(array)
    return tensors
