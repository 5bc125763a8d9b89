"""The quantizer against its definition, and the converted model in the real engine."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.models.conversion.kquant import BLOCK, Bits, Quantized, quantize
from agent.models.conversion.llama import Shape, _as_halves, rotary_caches

if TYPE_CHECKING:
    from pathlib import Path

    from agent.models.conversion.kquant import F32

SMOLLM2 = Shape(30, 576, 1536, 9, 3, 8192, 49152, 1e-5, 100_000.0)


def restore(quantized: Quantized, bits: Bits) -> F32:
    """Compute what MatMulNBits makes of it: scale · (value - zero point)."""
    n, blocks = quantized.scales.shape
    values, zeros = quantized.packed.reshape(n, -1), quantized.zero_points
    if bits == 4:
        values, zeros = (np.stack([x & 15, x >> 4], axis=-1).reshape(n, -1) for x in (values, zeros))
    levels = values.reshape(n, blocks, BLOCK).astype(np.float32) - zeros[:, :blocks, None]
    restored: F32 = (quantized.scales[..., None] * levels).reshape(n, -1)
    return restored


@pytest.mark.parametrize(("bits", "error"), [(4, 0.08), (8, 0.005)])
@pytest.mark.parametrize("columns", [32, 96, 576])
def test_quantized_weights_stay_near_the_originals(bits: Bits, error: float, columns: int) -> None:
    weights = np.random.default_rng(1).normal(size=(70, columns)).astype(np.float32)

    restored = restore(quantize(weights, bits), bits)

    assert np.sqrt(np.mean((restored - weights) ** 2)) < error * 1.2


@pytest.mark.parametrize("bits", [4, 8])
def test_a_block_of_zeros_stays_zero(bits: Bits) -> None:
    weights = np.zeros((2, 64), np.float32)

    assert np.array_equal(weights, restore(quantize(weights, bits), bits))


AGAINST_ONNXRUNTIME = """
import numpy as np
from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu
from agent.models.conversion.kquant import quantize_blocks

weights = np.random.default_rng(2).normal(size=(3000, 32)).astype(np.float32)
weights[:50] = np.round(weights[:50] * 4) / 4
for bits in (4, 8):
    for mine, theirs in zip(quantize_blocks(weights, bits), quant_tensor_k_quant_cpu(weights, bits, 32), strict=True):
        assert np.array_equal(mine, theirs.astype(mine.dtype)), bits
print("equal")
"""


@pytest.mark.skipif(find_spec("onnx_ir") is None, reason="onnxruntime's quantizer wants onnx_ir")
def test_the_quantizer_equals_onnxruntimes_to_the_bit() -> None:
    child = subprocess.run([sys.executable, "-c", AGAINST_ONNXRUNTIME], capture_output=True, text=True, check=False)

    assert child.stdout == "equal\n", child.stderr


def test_layers_that_suffer_most_get_eight_bits() -> None:
    eight = [layer for layer in range(SMOLLM2.layers) if SMOLLM2.bits(layer) == 8]

    assert eight == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29]


def test_rotary_rows_go_from_pairs_to_halves() -> None:
    rows = np.array([[0], [10], [1], [11], [2], [12], [3], [13]], np.float32)

    assert _as_halves(rows, 2).ravel().tolist() == [0, 1, 10, 11, 2, 3, 12, 13]


def test_rotary_angles_are_float32() -> None:
    cos, sin = rotary_caches(SMOLLM2)

    assert cos.shape == sin.shape == (8192, 32)
    assert cos[0].tolist() == [1.0] * 32
    assert sin[8191, 0] == np.float32(np.sin(8191.0))
    assert np.max(np.abs(cos**2 + sin**2 - 1)) < 1e-6


ASK = """
import json, sys
import onnxruntime_genai as og

model = og.Model(sys.argv[1])
tokenizer = og.Tokenizer(model)
messages = json.dumps([{"role": "user", "content": "What is the capital of France?"}])
prompt = tokenizer.encode(tokenizer.apply_chat_template(messages, add_generation_prompt=True))
parameters = og.GeneratorParams(model)
parameters.set_search_options(max_length=len(prompt) + 32, do_sample=False)
generator = og.Generator(model, parameters)
generator.append_tokens(prompt)
while not generator.is_done():
    generator.generate_next_token()
answer = generator.get_sequence(0)[len(prompt):]
text = "Straße 北京 🙂 don't  2025\\n\\n\\tx"
print(json.dumps({"answer": tokenizer.decode(answer), "echo": tokenizer.decode(tokenizer.encode(text)) == text}))
"""


def test_the_converted_model_knows_the_capital_of_france(model_store: Path) -> None:
    command = [sys.executable, "-c", ASK, str(model_store / "smollm2-135m")]
    child = subprocess.run(command, capture_output=True, text=True, check=False)

    assert child.returncode == 0, child.stderr
    assert json.loads(child.stdout.splitlines()[-1]) == {"answer": "The capital of France is Paris.", "echo": True}
