import json
from pathlib import Path
from typing import Any

import pytest

from agent.engines.worker.facts import ModelError, read
from agent.engines.worker.sampling import Options

_DECODER = {"num_hidden_layers": 30, "num_key_value_heads": 3, "head_size": 64}


def _write(folder: Path, search: dict[str, Any] | None = None, **model: Any) -> Path:
    whole = {"context_length": 8192, "eos_token_id": 2, "type": "llama", "decoder": _DECODER, **model}
    (folder / "genai_config.json").write_text(json.dumps({"model": whole, "search": search or {}}))
    return folder


@pytest.mark.parametrize(("written", "end"), [(2, {2}), ([2, 7], {2, 7})])
def test_one_end_token_or_several_are_known(tmp_path: Path, written: object, end: set[int]) -> None:
    assert read(_write(tmp_path, eos_token_id=written)).end == end


@pytest.mark.parametrize(("named", "graph"), [({}, "model.onnx"), ({"filename": "text.onnx"}, "text.onnx")])
def test_the_file_with_the_decoders_graph_is_known(tmp_path: Path, named: dict[str, str], graph: str) -> None:
    assert read(_write(tmp_path, decoder=_DECODER | named)).graph == graph


def test_a_token_takes_keys_and_values_of_every_layer(tmp_path: Path) -> None:
    assert read(_write(tmp_path)).kv_bytes == 30 * 2 * 3 * 64 * 4


def test_the_models_own_defaults_are_known(tmp_path: Path) -> None:
    facts = read(_write(tmp_path, {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 40}))

    assert facts.sampled
    assert facts.options == Options(temperature=0.7, top_p=0.9, top_k=40)


@pytest.mark.parametrize(
    ("kind", "context", "switch"),
    [("phi3", 131_072, 4096), ("phi3", 4096, None), ("phi3small", 131_072, 8192), ("llama", 131_072, None)],
)
def test_it_is_known_where_a_long_context_phi3_changes_its_rotary_factors(
    tmp_path: Path, kind: str, context: int, switch: int | None
) -> None:
    facts = read(_write(tmp_path, type=kind, context_length=context))

    assert (facts.context, facts.switch) == (context, switch)


def test_what_exceeds_the_first_rotary_factors_has_the_others(tmp_path: Path) -> None:
    facts = read(_write(tmp_path, type="phi3", context_length=131_072))

    assert [facts.long(tokens) for tokens in (4096, 4097)] == [False, True]


def test_where_the_factors_cannot_be_chosen_the_window_ends_with_the_first_ones(tmp_path: Path) -> None:
    facts = read(_write(tmp_path, type="phi3", context_length=131_072)).unsteered

    assert (facts.context, facts.long(4096)) == (4096, False)


def test_a_phi3v_models_window_ends_with_its_first_rotary_factors(tmp_path: Path) -> None:
    assert read(_write(tmp_path, type="phi3v", context_length=131_072)).context == 4096


def test_a_folder_without_a_model_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no genai_config.json; pull it with"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"model": {}}', '{"model": {"context_length": "x"}}'])
def test_a_broken_configuration_is_told_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "genai_config.json").write_text(text)

    with pytest.raises(ModelError, match="pull the model again"):
        read(tmp_path)


@pytest.mark.parametrize(("kind", "vision"), [("phi3v", True), ("phi3", False)])
def test_a_phi3v_model_takes_pictures(tmp_path: Path, kind: str, *, vision: bool) -> None:
    assert read(_write(tmp_path, type=kind)).vision is vision
