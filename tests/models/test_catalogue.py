"""The catalogue of this package, and a user's own over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.models import ModelError, catalogue, describe, footprint
from agent.models.catalogue import HubFolder, LocalFolder

if TYPE_CHECKING:
    from pathlib import Path

OWN = """\
barn:
  title: A model for barns
  licence: MIT
  modalities: [text]
  context: 4_096
  variants:
    cuda: {bytes: 10, memory: 20, folder: for-cuda}
    cpu:
      bytes: 10
      memory: 20
      hub:
        repository: me/barn
        revision: 0123456789012345678901234567890123456789
        folder: cpu
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    return file


def test_the_models_of_the_field_are_there() -> None:
    named = {name: [*entry.variants] for name, entry in catalogue().items()}
    assert named == {
        "phi-3.5-mini": ["cpu", "cuda"],
        "phi-3.5-vision": ["cpu", "cuda"],
        "phi-4-mini": ["cpu"],
        "smollm2-135m": ["cpu"],
        "shapes-vision": ["cpu"],
    }


def test_what_a_model_is_said_to_need_is_what_is_reckoned_of_its_files(model_folder: Path, vision_folder: Path) -> None:
    for folder in (model_folder, vision_folder):
        said = catalogue()[folder.name].variants["cpu"]
        assert footprint(folder, slots=1, answer_tokens=512).total == pytest.approx(said.memory, rel=0.02)
        assert describe(folder).bytes == pytest.approx(said.bytes, rel=0.02)


def test_a_users_own_are_added(own: Path) -> None:
    known = catalogue(own)
    assert {*known} == {*catalogue(), "barn"}
    variants = known["barn"].variants
    assert [*variants] == ["cpu", "cuda"]
    assert variants["cpu"].source == HubFolder("me/barn", "0123456789" * 4, "cpu", {})
    assert variants["cuda"].source == LocalFolder(own.parent / "for-cuda")


def test_a_users_own_replaces_one_of_that_name(own: Path) -> None:
    own.write_text(OWN.replace("barn:", "smollm2-135m:", 1))
    assert catalogue(own)["smollm2-135m"].title == "A model for barns"
    assert catalogue()["smollm2-135m"].title == "SmolLM2 135M Instruct, int4"


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("context: 4_096", "context: many", "own.yaml:5: `barn.context` should be a valid integer"),
        ("licence: MIT", "license: MIT", "own.yaml:3: `barn.license` is no key here"),
        ("[text]", "[text, smell]", "own.yaml:4: `barn.modalities.1` should be 'text' or 'image'"),
        ("    cuda:", "    gpu:", "own.yaml:7: `barn.variants.gpu` should be 'cpu', 'cuda'"),
        (
            "0123456789012345678901234567890123456789",
            "main",
            "own.yaml:13: .*revision` should be 40 hexadecimal digits",
        ),
        ("folder: cpu", "folder: ../cpu", "own.yaml:14: .*hub.folder` should be a relative path without a leading dot"),
        (
            "memory: 20, folder: for-cuda",
            "memory: 20",
            "own.yaml:7: `barn.variants.cuda` should have one of hub, wheel and folder",
        ),
        ("barn:", "b/arn:", "own.yaml:1: `b/arn` should match pattern"),
        ("  title: A model for barns\n", "", "own.yaml:1: `barn.title` is missing"),
        ("licence: MIT", "title: Another", "own.yaml:3: `barn.title` is there twice"),
        ("[text]", "[text", "own.yaml is not YAML"),
        ("[text]", "&a [*a]", r"own.yaml has an alias \(\*\) inside of what it stands for: correct it"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(own: Path, right: str, wrong: str, complaint: str) -> None:
    assert right in OWN
    own.write_text(OWN.replace(right, wrong, 1))
    with pytest.raises(ModelError, match=complaint):
        catalogue(own)


def test_a_catalogue_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the catalogue .*/none.yaml cannot be read \(No such file"):
        catalogue(tmp_path / "none.yaml")
