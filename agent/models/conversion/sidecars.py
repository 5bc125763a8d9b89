"""The files beside the graph: tokenizer, chat template, genai_config.json. Each a plain dict or string."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.models.conversion.llama import Model

CONTROL = 3
"""GGUF's token type for tokens that stand for no text, like ``<|im_end|>``."""


def tokenizer(model: Model) -> dict[str, Any]:
    """tokenizer.json: byte-level BPE, as Hugging Face's tokenizers and onnxruntime-extensions read it.

    SmolLM also splits numbers into digits before the merges; onnxruntime-genai 0.18 passes over that step (and no merge
    joins digits), so it is left out, and counting tokens with either library gives the same.
    """
    tokens, types = model.field("tokenizer.ggml.tokens"), model.field("tokenizer.ggml.token_type")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": tokens[index], **flags} for index, kind in enumerate(types) if kind == CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in model.field("tokenizer.ggml.merges")],
        },
    }


def tokenizer_config(model: Model) -> dict[str, Any]:
    """tokenizer_config.json: names of the special tokens."""
    tokens = model.field("tokenizer.ggml.tokens")
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    special = {name: tokens[model.field(f"tokenizer.ggml.{key}_token_id")] for name, key in names.items()}
    return {
        **special,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.shape.context,
        "add_bos_token": model.field("tokenizer.ggml.add_bos_token"),
    }


def chat_template(model: Model) -> str:
    """chat_template.jinja."""
    return str(model.field("tokenizer.chat_template"))


def genai_config(model: Model, graph_file: str) -> dict[str, Any]:
    """genai_config.json: how onnxruntime-genai drives the graph, and its defaults for a search."""
    shape = model.shape
    return {
        "model": {
            "type": "llama",
            "context_length": shape.context,
            "vocab_size": shape.vocabulary,
            "bos_token_id": model.field("tokenizer.ggml.bos_token_id"),
            "eos_token_id": model.field("tokenizer.ggml.eos_token_id"),
            "pad_token_id": model.field("tokenizer.ggml.padding_token_id"),
            "decoder": {
                "filename": graph_file,
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "head_size": shape.head_size,
                "hidden_size": shape.hidden,
                "num_attention_heads": shape.heads,
                "num_hidden_layers": shape.layers,
                "num_key_value_heads": shape.kv_heads,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": shape.context,
            "past_present_share_buffer": True,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
        },
    }
