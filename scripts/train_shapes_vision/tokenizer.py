"""The tokenizer: Llama's and Phi-3's kind (byte-pair encoding with byte fallback), with a vocabulary of its own."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

BOS = 1
SPECIAL = {
    token: 3 + 256 + place
    for place, token in enumerate(("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"))
}
END_OF_TEXT, END = SPECIAL["<|endoftext|>"], SPECIAL["<|end|>"]
IMAGE_TAG = re.compile(r"<\|image_\d+\|>")
MERGES = 200
"""Words that the pictures' language makes; every other text costs more tokens, and is still encodable."""

# Phi-3.5-vision's own.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}{{- '<|assistant|>\n' -}}"
    "{% endif %}"
)


def train(lines: Iterable[str]) -> Tokenizer:
    """Learn the merges of these lines; the letters of ASCII are always tokens, so that plain text needs no bytes."""
    learner = Tokenizer(models.BPE())
    # onnxruntime-genai never joins a word with the punctuation after it, so neither may the merges.
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    letters = ["▁", *map(chr, range(33, 127))]
    trainer = trainers.BpeTrainer(vocab_size=len(letters) + MERGES, initial_alphabet=letters, show_progress=False)
    learner.train_from_iterator(lines, trainer)
    learnt = json.loads(learner.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *SPECIAL]
    tokens += sorted(learnt["vocab"], key=learnt["vocab"].get)
    return Tokenizer.from_str(json.dumps(_description(tokens, learnt["merges"])))


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "legacy": False,
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "padding_side": "right",
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _description(tokens: list[str], merges: list[list[str]]) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "normalized": False, "special": True}
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "version": "1.0",
        "added_tokens": [
            # Phi-3's markers swallow the white space after them.
            {"id": tokens.index(token), "content": token, "rstrip": token.startswith("<|"), **flags}
            for token in ("<unk>", "<s>", "</s>", *SPECIAL)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": merges,
        },
    }
