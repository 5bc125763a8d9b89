"""What the full-size models with random weights have in common: a vocabulary, and many layers made of two.

All layers of a decoder but the first are alike to the model builder, which holds 0.8 GB for each: it makes two, and the
second is repeated, with weights of its own, straight into the file.
"""

import json
import os
import re
from itertools import product
from pathlib import Path
from typing import BinaryIO

import onnx
from tokenizers import Tokenizer

from scripts.train_shapes_vision import tokenizer as language

VOCABULARY = 32_064
# In bytes; a multiple of every number's size, and with 31 steps shorter than every weight.
_STEP = 64
# The layer's number in the names of nodes, weights and caches.
_LAYER = re.compile(r"(?<=layers\.|values\.|resent\.)[01]\b")


def tokenizer(line: str) -> Tokenizer:
    """Return a small tokenizer, filled up to the real one's size with tokens that no text has."""
    description = json.loads(language.train([line]).to_str())
    vocabulary = description["model"]["vocab"]
    vocabulary.update({f"<filler_{index}>": index for index in range(len(vocabulary), VOCABULARY)})
    return Tokenizer.from_str(json.dumps(description))


def lengthen(folder: Path, filename: str, layers: int) -> None:
    """Repeat the second of two layers until there are so many, in the graph and in genai_config.json."""
    path = folder / filename
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    last = max(index for index, node in enumerate(graph.node) if node.name.startswith("/model/layers.1/"))
    head, tail = list(graph.node)[: last + 1], list(graph.node)[last + 1 :]
    second = [node for node in head if node.name.startswith("/model/layers.1/")]
    nodes = [*head, *(_moved(node, by) for by in range(1, layers - 1) for node in second)]
    del graph.node[:]
    graph.node.extend([*nodes, *(_moved(node, layers - 2) for node in tail)])
    for values in (graph.input, graph.output, graph.value_info):
        for value, by in product([value for value in values if _number(value.name) == 1], range(1, layers - 1)):
            values.add().CopyFrom(value)
            values[-1].name = _renamed(value.name, by)
    weights = [weight for weight in graph.initializer if _number(weight.name) == 1]
    with path.with_name(f"{path.name}.data").open("r+b") as data:
        for weight, by in product(weights, range(1, layers - 1)):
            graph.initializer.append(_repeated(weight, by, data))
    onnx.save(model, path)
    config = json.loads((folder / "genai_config.json").read_text())
    config["model"]["decoder"]["num_hidden_layers"] = layers
    (folder / "genai_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _repeated(weight: onnx.TensorProto, by: int, data: BinaryIO) -> onnx.TensorProto:
    """Write a layer's weight once more, moved round by whole numbers: the runtime holds what is equal only once."""
    place = {entry.key: entry for entry in weight.external_data}
    copy = onnx.TensorProto()
    copy.CopyFrom(weight)
    copy.name = _renamed(weight.name, by)
    if not place:  # a small one, which lies in the graph itself
        return copy
    data.seek(int(place["offset"].value))
    content = data.read(int(place["length"].value))
    next(entry for entry in copy.external_data if entry.key == "offset").value = str(data.seek(0, os.SEEK_END))
    data.write(content[by * _STEP :] + content[: by * _STEP])
    return copy


def _number(name: str) -> int | None:
    found = _LAYER.search(name)
    return None if found is None else int(found[0])


def _renamed(name: str, by: int) -> str:
    return _LAYER.sub(lambda found: str(int(found[0]) + by), name)


def _moved(node: onnx.NodeProto, by: int) -> onnx.NodeProto:
    """Copy a node to a layer further on; a node at the end comes to follow that layer."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = _renamed(node.name, by)
    copy.input[:] = [_renamed(name, by) for name in node.input]
    copy.output[:] = [_renamed(name, by) for name in node.output]
    return copy
