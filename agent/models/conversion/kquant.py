"""K-quant: blocks of 32 weights to 4 or 8 bits, each with the scale and zero point that cost least.

The same arithmetic, operation for operation, as ``quant_tensor_k_quant_cpu`` in onnxruntime's quantizer (after
llama.cpp's ``make_qkx2_quants``), so that the result equals what onnxruntime-genai's model builder makes, to the bit.
That function is private, logs a line for every tensor and works on whole tensors, 1 GB at a time for an embedding
table; this one works in slices that stay in the processor's cache, on all cores.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Bits = Literal[4, 8]
F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

BLOCK = 32
"""Weights that share a scale; 32 is what MatMulNBits' int8 kernels (accuracy level 4) and Q4_1 both use."""

SLICE = 4096
"""Blocks quantized at once: each temporary is 512 KiB, so the handful in use stays in the cache."""

CANDIDATES = 20
"""Scales tried per block, in steps of 0.1 quantization levels from one level below the plain min-max scale."""


class Quantized(NamedTuple):
    """A matrix of n rows and k columns as MatMulNBits wants it."""

    packed: U8
    """[n, k/32, 16 or 32]: two weights a byte, the earlier in the low half, or one."""
    scales: F32
    """[n, k/32]"""
    zero_points: U8
    """[n, k/32] at 8 bits; [n, ⌈k/64⌉] at 4 bits, two a byte."""


def quantize(weights: F32, bits: Bits) -> Quantized:
    """Quantize a matrix [n, k], k a multiple of 32, along its rows."""
    n, k = weights.shape
    per_row = k // BLOCK
    rows = max(1, SLICE // per_row)
    out = Quantized(
        np.empty((n, per_row, BLOCK * bits // 8), np.uint8),
        np.empty((n, per_row), np.float32),
        np.empty((n, -(-per_row * bits // 8)), np.uint8),
    )

    def fill(start: int) -> None:
        part = weights[start : start + rows]
        values, scales, zeros = quantize_blocks(part.reshape(-1, BLOCK), bits)
        at = slice(start, start + len(part))
        out.scales[at] = scales.reshape(-1, per_row)
        zeros = zeros.reshape(-1, per_row)
        if bits < 8:  # noqa: PLR2004 - less than a byte
            values = _two_a_byte(values)
            # An odd row's last half byte is never read; 8 is what onnxruntime pads with.
            zeros = _two_a_byte(np.pad(zeros, ((0, 0), (0, per_row % 2)), constant_values=8))
        out.packed[at] = values.reshape(-1, per_row, BLOCK * bits // 8)
        out.zero_points[at] = zeros

    _on_all_cores(fill, range(0, n, rows))
    return out


def _two_a_byte(values: U8) -> U8:
    return np.bitwise_or(values[:, ::2], np.left_shift(values[:, 1::2], np.uint8(4)), dtype=np.uint8)


def _on_all_cores(work: Callable[[int], None], starts: range) -> None:
    # numpy lets go of the GIL inside its loops, so threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, starts):
            pass


def quantize_blocks(data: F32, bits: Bits) -> tuple[U8, F32, U8]:
    """Quantize blocks [count, 32] to values [count, 32], scales [count, 1] and zero points [count, 1]."""
    top = 2**bits - 1
    magnitude = np.sqrt(_sum(data**2) / BLOCK)
    importance = np.add(magnitude, np.abs(data))
    sum_w = _sum(importance)
    sum_x = _sum(importance * data)
    high = np.max(data, axis=1, keepdims=True)
    low = np.min(data, axis=1, keepdims=True)

    inverse = _inverse_scale(top, low, high)
    scale = 1 / inverse
    q = np.clip(np.round(inverse * (data - low)), 0, top)
    best = _sum(importance * (scale * q + low - data) ** 2)
    for step in range(CANDIDATES):
        # The search goes on from the best low end so far, not from the block's minimum: so does the original.
        inverse = _inverse_scale(-1 + 0.1 * step + top, low, high)
        q = np.clip(np.round(inverse * (data - low)), 0, top)
        wq = importance * q
        sum_q, sum_qq, sum_xq = _sum(wq), _sum(wq * q), _sum(wq * data)
        # Weighted least squares for data ≈ scale·q + low. Where all q of a block are alike there is no answer:
        # NaN, which loses the comparison.
        with np.errstate(all="ignore"):
            determinant = sum_w * sum_qq - sum_q**2
            new_scale = (sum_w * sum_xq - sum_x * sum_q) / determinant
            new_low = (sum_qq * sum_x - sum_q * sum_xq) / determinant
            cost = _sum(importance * (new_scale * q + new_low - data) ** 2)
        better = cost < best
        best, scale, low = (
            np.where(better, new, old) for new, old in ((cost, best), (new_scale, scale), (new_low, low))
        )

    zero_point = np.clip(np.round(-low / scale), 0, top).astype(np.uint8)
    values = np.clip(np.round(data / scale.astype(np.float64) + zero_point), 0, top)
    return values.astype(np.uint8), scale.astype(np.float32), zero_point


def _sum(blocks: F32) -> F32:
    total: F32 = np.sum(blocks, axis=1, keepdims=True)
    return total


def _inverse_scale(levels: float, low: F32, high: F32) -> F32:
    span = high - low
    with np.errstate(divide="ignore"):
        return np.where(span == 0, np.float32(1), np.float32(levels) / span)
