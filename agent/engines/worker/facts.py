"""What a model folder's genai_config.json says that the worker must know besides what the library does with it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.engines.worker.sampling import Options

# Phi-3's long-context models rotate positions by other factors beyond so many tokens; see `agent.engines.worker.rope`.
# (onnxruntime-genai, src/generators.cpp, InitializePhi3RopeThreshold.)
_ROPE_SWITCH = {"phi3": 4096, "phimoe": 4096, "phi3small": 8192, "phi3v": 4096}
# KV caches hold float32 on CPU.
_FLOAT_BYTES = 4


class ModelError(Exception):
    """The model cannot be loaded; the message is a sentence that says what to do.

    It is told to every client, so it has no path in it; what the library says, which may, is left to the cause.
    """


@dataclass(frozen=True, slots=True)
class Facts:
    """A model, as far as the scheduler cares.

    Attributes:
        context: its window in tokens, prompt and answer together; as much of it as the box's memory could ever hold.
        switch: how many of them its first rotary factors are for; None where the same ones are for the whole window.
        graph: the name of the file with the decoder's graph.
        end: the tokens that end an answer.
        vision: whether it is a `phi3v` model: it takes pictures, and its caches cannot be rewound.
        kv_bytes: memory of one token's keys and values on CPU, in bytes; 0 if the file does not tell.
        sampled: whether its own default is to draw tokens rather than take the likeliest.
        options: its own defaults for drawing.

    """

    context: int
    end: frozenset[int]
    switch: int | None = None
    graph: str = "model.onnx"
    vision: bool = False
    kv_bytes: int = 0
    sampled: bool = False
    options: Options = field(default_factory=Options)

    @property
    def unsteered(self) -> "Facts":
        """The same, where nobody can say which rotary factors are used: the window ends with the first ones'."""
        return self if self.switch is None else replace(self, context=self.switch, switch=None)

    def long(self, tokens: int) -> bool:
        """Whether so many tokens have the other rotary factors, from the first of them on."""
        return self.switch is not None and tokens > self.switch


def read(folder: Path) -> Facts:
    """Read the facts of the model in ``folder``.

    Raises:
        ModelError: there is none, or its configuration makes no sense.

    """
    path = folder / "genai_config.json"
    try:
        config = json.loads(path.read_bytes())
        return _facts(config["model"], config.get("search", {}))
    except FileNotFoundError as error:
        raise ModelError(
            f"there is no model in the folder {folder.name}: it has no genai_config.json; "
            "pull it with `edge-slm models pull`, or configure another folder"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the genai_config.json of {folder.name} cannot be used; pull the model again") from error


def _facts(model: Mapping[str, Any], search: Mapping[str, Any]) -> Facts:
    end = model["eos_token_id"]
    context = int(model["context_length"])
    decoder = model.get("decoder", {})
    kind = model.get("type", "")
    shape = ("num_hidden_layers", "num_key_value_heads", "head_size")
    layers, heads, size = (int(decoder.get(name, 0)) for name in shape)
    switch = _ROPE_SWITCH.get(kind, context)
    facts = Facts(
        context=context,
        switch=switch if switch < context else None,
        graph=str(decoder.get("filename", "model.onnx")),
        end=frozenset(end if isinstance(end, list) else [end]),
        vision=kind == "phi3v",
        kv_bytes=2 * layers * heads * size * _FLOAT_BYTES,
        sampled=bool(search.get("do_sample", False)),
        options=Options(
            temperature=float(search.get("temperature", 1.0)),
            top_p=float(search.get("top_p", 1.0)),
            top_k=int(search.get("top_k", 0)),
            repetition_penalty=float(search.get("repetition_penalty", 1.0)),
        ),
    )
    return facts.unsteered if facts.vision else facts
