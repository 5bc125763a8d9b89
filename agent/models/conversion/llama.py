"""The weights: read from a llama-type GGUF, quantized, written as the ONNX graph's external data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader
from gguf.quants import dequantize

from agent.models.conversion.kquant import F32, Bits, quantize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.models.conversion.graph import Bytes

ALIGNMENT = 64
"""Each tensor starts on a cache line; onnxruntime maps the file into memory and some kernels use it in place."""


class UnsuitableModelError(Exception):
    """The GGUF holds something other than this conversion knows."""


@dataclass(frozen=True)
class Shape:
    """What a llama-type model is made of, in the GGUF's terms."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    context: int
    vocabulary: int
    norm_epsilon: float
    rope_theta: float

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    def bits(self, layer: int) -> Bits:
        """Bits for a layer's attention input and MLP output, which suffer most from quantization.

        Eight in the first and last eighth of the layers and in every third between: llama.cpp's Q4_K_M recipe, which
        onnxruntime-genai calls k_quant_mixed. All else has four, but for the embedding, which is the output head too.
        """
        edge = self.layers / 8
        third = (layer - round(edge) + 1) % 3 == 0
        return 8 if layer < edge or layer >= 7 * edge or third else 4


class Weight(NamedTuple):
    """One tensor of the model under its name in the graph; `bits` is None where it stays float32."""

    name: str
    values: F32
    bits: Bits | None


class Model:
    """A GGUF file, open."""

    def __init__(self, path: Path) -> None:
        self._reader = GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        architecture = self.field("general.architecture")
        if architecture != "llama":
            raise UnsuitableModelError(
                f"{path.name} holds a {architecture} model; only llama-type models can be converted"
            )
        if "output.weight" in self._tensors:
            raise UnsuitableModelError(
                f"{path.name} has an output head of its own; only models that reuse their embedding can be converted"
            )
        self.shape = Shape(
            layers=self.field("llama.block_count"),
            hidden=self.field("llama.embedding_length"),
            feed_forward=self.field("llama.feed_forward_length"),
            heads=self.field("llama.attention.head_count"),
            kv_heads=self.field("llama.attention.head_count_kv"),
            context=self.field("llama.context_length"),
            vocabulary=self.field("llama.vocab_size"),
            norm_epsilon=self.field("llama.attention.layer_norm_rms_epsilon"),
            rope_theta=self.field("llama.rope.freq_base"),
        )

    def field(self, key: str) -> Any:  # noqa: ANN401 - a GGUF field is a number, a string or a list of either
        """Return a metadata value by its GGUF key."""
        field = self._reader.get_field(key)
        if field is None:
            raise UnsuitableModelError(f"the GGUF file lacks {key}")
        return field.contents()

    def weights(self) -> Iterator[Weight]:
        """Every tensor of the model, one at a time, dequantized."""
        shape = self.shape
        cos, sin = rotary_caches(shape)
        yield Weight("rotary.cos", cos, None)
        yield Weight("rotary.sin", sin, None)
        yield Weight("embedding", self._values("token_embd"), 8)
        for layer in range(shape.layers):
            old, new, mixed = f"blk.{layer}", f"layers.{layer}", shape.bits(layer)
            qkv = np.concatenate(
                [
                    _as_halves(self._values(f"{old}.attn_q"), shape.heads),
                    _as_halves(self._values(f"{old}.attn_k"), shape.kv_heads),
                    self._values(f"{old}.attn_v"),
                ]
            )
            yield Weight(f"{new}.attention_norm", self._values(f"{old}.attn_norm"), None)
            yield Weight(f"{new}.qkv", qkv, mixed)
            yield Weight(f"{new}.attention_out", self._values(f"{old}.attn_output"), 4)
            yield Weight(f"{new}.mlp_norm", self._values(f"{old}.ffn_norm"), None)
            yield Weight(f"{new}.gate", self._values(f"{old}.ffn_gate"), 4)
            yield Weight(f"{new}.up", self._values(f"{old}.ffn_up"), 4)
            yield Weight(f"{new}.down", self._values(f"{old}.ffn_down"), mixed)
        yield Weight("norm", self._values("output_norm"), None)

    def _values(self, name: str) -> F32:
        tensor = self._tensors[f"{name}.weight"]
        return np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)


def _as_halves(weight: F32, heads: int) -> F32:
    """Reorder a query or key matrix from GGUF's rotary layout, pairs side by side, to ONNX's, two halves."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def rotary_caches(shape: Shape) -> tuple[F32, F32]:
    """Cosine and sine for each position and frequency, [context, head_size/2].

    Frequencies and angles are float32, as the model was trained with; powers and cosines are taken in float64 and
    rounded once, which is within one unit in the last place of what torch gives.
    """
    powers = (shape.rope_theta ** (np.arange(0, shape.head_size, 2) / shape.head_size)).astype(np.float32)
    positions = np.arange(shape.context, dtype=np.float32)
    angles = np.outer(positions, np.float32(1) / powers).astype(np.float64)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def write_weights(model: Model, path: Path, progress: Callable[[int, int], None]) -> dict[str, Bytes]:
    """Quantize and write every tensor; returns where in the file each one lies, by its name in the graph."""
    places: dict[str, Bytes] = {}
    total = 4 + 7 * model.shape.layers
    with path.open("wb") as file:
        for done, weight in enumerate(model.weights()):
            progress(done, total)
            if weight.bits is None:
                places[weight.name] = _append(file, weight.values)
                continue
            packed, scales, zero_points = quantize(weight.values, weight.bits)
            places[weight.name] = _append(file, packed)
            places[f"{weight.name}.scales"] = _append(file, scales)
            places[f"{weight.name}.zero_points"] = _append(file, zero_points)
    progress(total, total)
    return places


def _append(file: BinaryIO, array: npt.NDArray[np.float32] | npt.NDArray[np.uint8]) -> Bytes:
    file.write(b"\0" * (-file.tell() % ALIGNMENT))
    offset = file.tell()
    file.write(np.ascontiguousarray(array).data)
    return array.dtype, array.shape, offset
