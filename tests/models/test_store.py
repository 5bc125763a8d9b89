"""Finding, checking and describing what lies in a store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.models import Description, ModelError, catalogue, content, describe, installed, lookup, resolve, verify
from agent.models.store import write_manifest


def make_model(folder: Path, **model: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    config = {"model": {"type": "phi3", "context_length": 4096, "decoder": {"filename": "model.onnx"}, **model}}
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder


def test_a_catalogue_name_resolves_into_the_store(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "smollm2-135m")

    assert folder == resolve("smollm2-135m", tmp_path)


def test_a_catalogue_name_that_is_not_installed_says_how_to_pull_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve("smollm2-135m", tmp_path)

    expected = f"model smollm2-135m is not installed in {tmp_path}: run `edge-slm models pull smollm2-135m`"
    assert expected == str(caught.value)


def test_a_catalogue_name_is_not_taken_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(tmp_path / "smollm2-135m")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelError, match="is not installed"):
        resolve("smollm2-135m", tmp_path / "store")


def test_a_folder_anywhere_resolves_to_itself(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "elsewhere" / "mine")

    assert folder == resolve(str(folder), tmp_path / "store")


def test_a_folder_dropped_into_the_store_resolves_by_its_name(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")

    assert folder == resolve("mine", tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model named smolm2-135m: did you mean smollm2-135m\?"):
        resolve("smolm2-135m", tmp_path)


def test_a_name_like_no_other_is_answered_with_the_catalogue() -> None:
    with pytest.raises(ModelError, match=r"the catalogue has phi-3\.5-mini, .*, smollm2-135m, or give a folder"):
        lookup("zzz", catalogue())


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no genai_config\.json"):
        resolve(str(tmp_path), tmp_path)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        resolve(str(tmp_path / "a" / "b"), tmp_path)


def test_installed_lists_models_and_nothing_half_made(tmp_path: Path) -> None:
    make_model(tmp_path / "b")
    make_model(tmp_path / "a")
    make_model(tmp_path / ".pulling")
    (tmp_path / "empty").mkdir()

    assert installed(tmp_path) == ["a", "b"]


def test_installed_is_empty_for_a_store_that_is_not_there(tmp_path: Path) -> None:
    assert installed(tmp_path / "none") == []


def test_a_whole_model_has_no_problems(tmp_path: Path) -> None:
    write_manifest(make_model(tmp_path / "mine"), {})

    assert verify("mine", tmp_path) == []


def test_one_changed_byte_is_found(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")
    write_manifest(folder, {})
    (folder / "model.onnx").write_bytes(b"grapH")

    assert verify("mine", tmp_path) == ["model.onnx has changed since it was installed"]


def test_a_short_file_is_found(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")
    write_manifest(folder, {})
    (folder / "model.onnx").write_bytes(b"g")

    assert verify("mine", tmp_path) == ["model.onnx has 1 bytes where 5 were installed"]


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")
    write_manifest(folder, {})
    (folder / "model.onnx").unlink()

    assert verify("mine", tmp_path) == ["model.onnx is missing"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": {"a": 1}}'])
def test_a_damaged_manifest_is_found(tmp_path: Path, content: str) -> None:
    (make_model(tmp_path / "mine") / "manifest.json").write_text(content)

    assert verify("mine", tmp_path) == ["manifest.json is damaged"]


def test_a_foreign_folder_is_asked_for_the_files_it_names(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine", vision={"filename": "vision.onnx", "config_filename": "processor.json"})
    (folder / "processor.json").touch()

    assert verify(str(folder), tmp_path) == ["vision.onnx, which genai_config.json names, is missing"]


def test_a_catalogue_model_without_a_manifest_is_a_problem(tmp_path: Path) -> None:
    make_model(tmp_path / "smollm2-135m")

    assert verify("smollm2-135m", tmp_path) == ["manifest.json is missing"]


def test_every_variant_of_a_model_is_checked(tmp_path: Path) -> None:
    for name in ("smollm2-135m", "smollm2-135m@cuda", "smollm2-135m@QNN"):
        make_model(tmp_path / name)
    write_manifest(tmp_path / "smollm2-135m", {})
    write_manifest(tmp_path / "smollm2-135m@cuda", {})
    (tmp_path / "smollm2-135m@cuda" / "model.onnx").write_bytes(b"grapH")

    changed = "model.onnx has changed since it was installed"
    assert verify("smollm2-135m", tmp_path) == [
        "smollm2-135m@QNN: manifest.json is missing",
        f"smollm2-135m@cuda: {changed}",
    ]
    assert verify("smollm2-135m@cuda", tmp_path) == [changed]


def test_a_model_of_which_one_variant_alone_is_here_can_be_checked(tmp_path: Path) -> None:
    write_manifest(make_model(tmp_path / "smollm2-135m@cuda"), {})

    assert verify("smollm2-135m", tmp_path) == []


def test_a_file_that_was_replaced_makes_another_content(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")
    before = content(folder)

    assert content(folder) == before
    os.utime(folder / "model.onnx", ns=(0, 0))
    assert content(folder) != before


def test_a_text_model_is_described(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")

    size = sum(file.stat().st_size for file in folder.iterdir())
    assert Description("phi3", ("text",), 4096, size) == describe(folder)


def test_a_model_with_a_vision_part_takes_images(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine", type="phi3v", vision={"filename": "vision.onnx"})

    assert describe(folder).modalities == ("text", "image")


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"model": {}}', '{"model": {"type": "x", "context_length": "?"}}']
)
def test_an_unusable_configuration_is_refused_in_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "genai_config.json").write_text(content)

    with pytest.raises(ModelError, match="fetch or build the model again") as caught:
        describe(tmp_path)

    assert "\n" not in str(caught.value)


def test_importing_the_room_loads_nothing_heavy() -> None:
    heavy = {"numpy", "onnx", "gguf", "onnxruntime", "onnxruntime_genai", "huggingface_hub", "yaml", "pydantic"}
    code = f"import sys, agent.models; print(sorted({heavy!r} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert child.stdout.strip() == "[]"
