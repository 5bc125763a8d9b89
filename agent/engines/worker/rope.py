"""Which of its two sets of rotary factors a Phi-3 model uses, made the caller's choice.

The long-context models of the Phi-3 family rotate positions by other factors as soon as prompt and answer exceed 4,096
tokens. In the graph, an `If` takes one of two tables by the length at which a call ends, but keys are cached as they
were rotated. So a prompt in slices across that length mixes both, and the answer is wrong without an error (logits off
by 11 in a small model). What onnxruntime-genai offers instead is one call: of the whole prompt, or, at exactly 4,097
tokens, of everything again (src/standard_decoding_strategy.cpp). That is minutes on an edge processor, in which no
cancel acts and no other job moves, and 2 GB more memory.

Here the `If` goes by an input of ours in place of the length, so that all of a cache has one table. The graph is
changed in memory, on its way from the file to the runtime.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import NodeProto

INPUT = "use_long_factors"
"""The input that is added: one boolean."""

_TABLES = ["cos_cache", "sin_cache"]


def steered(model: bytes, switch: int) -> bytes | None:
    """Return the model with `INPUT`; None if its graph has no choice of two tables such as the model builder makes.

    None, too, if it cannot be read or written: of more than 2 GB, as with its weights inside, is no message.

    Args:
        model: an ONNX file's content. What lies in external data stays there.
        switch: the length up to which the shorter table is for.

    """
    # They take 13 MB, which the workers of other models need not have.
    from google.protobuf.message import Error  # type: ignore[import-untyped]  # noqa: PLC0415
    from onnx import TensorProto, helper, load_model_from_string  # noqa: PLC0415

    try:
        proto = load_model_from_string(model)
    except (Error, ValueError):
        return None  # the runtime says what is wrong with it
    choices = [node for node in proto.graph.node if node.op_type == "If" and [*node.output] == _TABLES]
    if len(choices) != 1 or not _rows(choices[0], "else_branch") == switch < _rows(choices[0], "then_branch"):
        return None
    choices[0].input[:] = [INPUT]
    proto.graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.BOOL, [1]))
    try:
        return bytes(proto.SerializeToString())
    except (Error, ValueError):
        return None


def _rows(choice: "NodeProto", branch: str) -> int:
    """Return how many positions the table of a branch is for; 0 if there is none to be seen."""
    graphs = [each.g for each in choice.attribute if each.name == branch]
    tables = [each.t for graph in graphs for node in graph.node for each in node.attribute]
    return min((table.dims[0] for table in tables if table.dims), default=0)
