"""The ONNX graph of a llama-type decoder, as onnxruntime-genai drives it.

Node for node what onnxruntime-genai's model builder 0.18 makes for the CPU with ``-p int4 algo_config=k_quant_mixed``:
fused query-key-value projection, GroupQueryAttention with rotary embedding and KV cache inside, MatMulNBits at accuracy
level 4 (int8 arithmetic, the fast kernels). Three things differ: names; the embedding table, which is named twice over
the same bytes where the builder reshapes a copy of it when the model is loaded; and the logits, which are those of the
last token alone (a prompt's time to the first token is a fifth shorter; onnxruntime-genai's Generator, which the worker
drives, reads no others, but its Engine wants them all).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from agent.models.conversion.kquant import BLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.models.conversion.kquant import Bits
    from agent.models.conversion.llama import Shape

Bytes = tuple[np.dtype, tuple[int, ...], int]
"""Where a tensor lies in the external data: its type, its shape, its offset."""

MICROSOFT = "com.microsoft"
OPSET = 22
IR_VERSION = 10
INT8_ARITHMETIC = 4
"""MatMulNBits' accuracy level; the others compute in float32 and are 25 to 50 times slower."""


def build(shape: Shape, places: dict[str, Bytes], data_file: str) -> ModelProto:
    """Build the model, its weights referring to `data_file`."""
    decoder = _Decoder(shape)
    decoder.run()
    kind, (vocabulary, blocks, size), offset = places["embedding"]
    table = {"embedding.table": (kind, (vocabulary, blocks * size), offset)}
    graph = helper.make_graph(
        decoder.nodes,
        "llama",
        inputs=[
            _tensor("input_ids", TensorProto.INT64, "batch", "sequence"),
            _tensor("attention_mask", TensorProto.INT64, "batch", "total"),
            *_kv_cache(shape, "past_key_values", "past"),
        ],
        outputs=[
            _tensor("logits", TensorProto.FLOAT, "batch", 1, shape.vocabulary),
            *_kv_cache(shape, "present", "total"),
        ],
        initializer=[
            numpy_helper.from_array(np.array(1, np.int64), "one"),
            numpy_helper.from_array(np.array([1], np.int64), "axis_one"),
            numpy_helper.from_array(np.array([-1], np.int64), "last"),
            *(_external(name, place, data_file) for name, place in (places | table).items()),
        ],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edge-slm-agent")


class _Decoder:
    """Appends nodes; a method that computes something returns the name of the value it made."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.nodes: list[NodeProto] = []

    def run(self) -> None:
        """Append the whole way from token ids to logits."""
        lengths = self._lengths()
        table = ["embedding.table", "input_ids", "embedding.scales", "embedding.zero_points"]
        attributes = {"bits": 8, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
        residual = self._add("GatherBlockQuantized", table, ["embedded"], attributes, MICROSOFT)
        update = None
        for layer in range(self.shape.layers):
            name = f"layers.{layer}"
            normal, residual = self._norm(f"{name}.attention_norm", residual, update)
            update = self._attention(layer, normal, lengths)
            normal, residual = self._norm(f"{name}.mlp_norm", residual, update)
            update = self._mlp(layer, normal)
        normal, _ = self._norm("norm", residual, update)
        # Of a prompt only the last token's logits are ever read, and this matrix is a fifth of the model's work.
        normal = self._add("Gather", [normal, "last"], ["norm/last"], {"axis": 1})
        self._matmul("embedding", normal, (self.shape.vocabulary, self.shape.hidden), 8, output="logits")

    def _add(
        self,
        op: str,
        inputs: list[str],
        outputs: list[str],
        attributes: Mapping[str, float] | None = None,
        domain: str = "",
    ) -> str:
        node = helper.make_node(op, inputs, outputs, name=f"{outputs[0]}/{op}", domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in (attributes or {}).items())
        self.nodes.append(node)
        return outputs[0]

    def _matmul(self, weight: str, value: str, size: tuple[int, int], bits: Bits, *, output: str = "") -> str:
        inputs = [value, weight, f"{weight}.scales", f"{weight}.zero_points"]
        rows, columns = size
        attributes = {"N": rows, "K": columns, "bits": bits, "block_size": BLOCK, "accuracy_level": INT8_ARITHMETIC}
        return self._add("MatMulNBits", inputs, [output or f"{weight}/out"], attributes, MICROSOFT)

    def _norm(self, weight: str, residual: str, update: str | None) -> tuple[str, str]:
        """Add `update` to the residual stream and normalize; returns the normalized value and the new stream."""
        output, epsilon = f"{weight}/out", {"epsilon": self.shape.norm_epsilon}
        if update is None:
            return self._add("SimplifiedLayerNormalization", [residual, weight], [output], epsilon), residual
        outputs = [output, "", "", f"{weight}/stream"]
        self._add("SkipSimplifiedLayerNormalization", [residual, update, weight], outputs, epsilon, MICROSOFT)
        return output, outputs[-1]

    def _lengths(self) -> list[str]:
        """GroupQueryAttention's `seqlens_k` (of each row, less one) and `total_sequence_length`, from the mask."""
        row = self._add("ReduceSum", ["attention_mask", "axis_one"], ["mask/sum"], {"keepdims": 0})
        row = self._add("Sub", [row, "axis_one"], ["mask/less_one"])
        row = self._add("Cast", [row], ["seqlens_k"], {"to": TensorProto.INT32})
        total = self._add("Shape", ["attention_mask"], ["mask/shape"])
        total = self._add("Gather", [total, "one"], ["mask/width"], {"axis": 0})
        return [row, self._add("Cast", [total], ["total_sequence_length"], {"to": TensorProto.INT32})]

    def _attention(self, layer: int, value: str, lengths: list[str]) -> str:
        shape, name = self.shape, f"layers.{layer}"
        width = (shape.heads + 2 * shape.kv_heads) * shape.head_size
        qkv = self._matmul(f"{name}.qkv", value, (width, shape.hidden), shape.bits(layer))
        past, present = ([f"{kind}.{layer}.key", f"{kind}.{layer}.value"] for kind in ("past_key_values", "present"))
        attributes = {"num_heads": shape.heads, "kv_num_heads": shape.kv_heads, "do_rotary": 1}
        attended = self._add(
            "GroupQueryAttention",
            [qkv, "", "", *past, *lengths, "rotary.cos", "rotary.sin"],
            [f"{name}.attended", *present],
            attributes,
            MICROSOFT,
        )
        return self._matmul(f"{name}.attention_out", attended, (shape.hidden, shape.hidden), 4)

    def _mlp(self, layer: int, value: str) -> str:
        shape, name = self.shape, f"layers.{layer}"
        wide, narrow = (shape.feed_forward, shape.hidden), (shape.hidden, shape.feed_forward)
        gate = self._matmul(f"{name}.gate", value, wide, 4)
        up = self._matmul(f"{name}.up", value, wide, 4)
        sigmoid = self._add("Sigmoid", [gate], [f"{name}.sigmoid"])
        silu = self._add("Mul", [gate, sigmoid], [f"{name}.silu"])
        gated = self._add("Mul", [silu, up], [f"{name}.gated"])
        return self._matmul(f"{name}.down", gated, narrow, shape.bits(layer))


def _tensor(name: str, kind: int, *dimensions: str | int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dimensions)


def _kv_cache(shape: Shape, prefix: str, length: str) -> list[ValueInfoProto]:
    return [
        _tensor(f"{prefix}.{layer}.{part}", TensorProto.FLOAT, "batch", shape.kv_heads, length, shape.head_size)
        for part in ("key", "value")
        for layer in range(shape.layers)
    ]


def _external(name: str, place: Bytes, data_file: str) -> TensorProto:
    kind, dimensions, offset = place
    tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(kind), dims=dimensions)
    tensor.data_location = TensorProto.EXTERNAL
    length = kind.itemsize * int(np.prod(dimensions))
    for key, value in (("location", data_file), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
