from pathlib import Path

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from agent.engines.worker.rope import INPUT, steered
from tests.engines.running import python

_PHI = Path(__file__).parent.parent / "models" / "phi-tiny"
_UNSTEERED = """
import sys
from pathlib import Path
from agent.engines.worker import model

model.steered = lambda *_: None
loaded = model.Model(Path(sys.argv[1]), 1)
print(loaded.facts.context, loaded.facts.switch, loaded.narrowed)
"""
# Twice, so that a busy machine can hold up one of them: how long the prompt took, and the longest step of its answer.
_ACROSS = """
import sys, time
from pathlib import Path
from agent.engines.worker.model import Model

def timed(call):
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun

model, times = Model(Path(sys.argv[1]), 1), []
for _ in range(2):
    cache = model.cache(4200, long=True)
    prompt = timed(lambda: cache.append([5] * 4090))
    times.append((prompt, [timed(cache.generate) for _ in range(12)]))
print(min(prompt for prompt, _ in times), max(map(min, *(steps for _, steps in times))))
"""


def _branch(rows: int) -> GraphProto:
    table = numpy_helper.from_array(np.zeros((rows, 4), np.float32))
    nodes = [helper.make_node("Constant", [], [name], value=table) for name in ("cos", "sin")]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("cos", "sin")]
    return helper.make_graph(nodes, "branch", [], outputs)


def _model(*, short: int = 4096, long: int = 8192, output: str = "cos_cache") -> bytes:
    """Make what the model builder does, and nothing besides."""
    choice = helper.make_node(
        "If", ["exceeds"], [output, "sin_cache"], then_branch=_branch(long), else_branch=_branch(short)
    )
    exceeds = helper.make_tensor_value_info("exceeds", TensorProto.BOOL, [])
    return bytes(helper.make_model(helper.make_graph([choice], "model", [exceeds], [])).SerializeToString())


def test_the_choice_of_factors_goes_by_an_input_of_its_own() -> None:
    graph = ModelProto.FromString(steered(_model(), 4096) or b"").graph

    assert [*graph.node[0].input] == [INPUT]
    assert [each.name for each in graph.input] == ["exceeds", INPUT]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(_model(short=2048), id="a table of another length"),
        pytest.param(_model(short=8192, long=4096), id="the long one where the short one is expected"),
        pytest.param(_model(output="cos_cache_local"), id="a choice of something else"),
        pytest.param(b"nonsense", id="no model"),
    ],
)
def test_a_graph_that_is_not_as_expected_is_left_alone(model: bytes) -> None:
    assert steered(model, 4096) is None


def test_a_model_builders_graph_is_as_expected() -> None:
    assert steered((_PHI / "model.onnx").read_bytes(), 4096) is not None


async def test_an_answer_that_passes_the_switch_does_not_have_all_before_it_computed_again() -> None:
    prompt_s, longest_step_s = map(float, (await python("-c", _ACROSS, str(_PHI), given="")).split())

    assert longest_step_s < prompt_s / 4


async def test_a_model_whose_graph_is_not_as_expected_has_the_window_of_its_first_factors() -> None:
    assert await python("-c", _UNSTEERED, str(_PHI), given="") == "4096 None True\n"
