"""What a box makes of the models that are installed: the ways to run them, and when they are others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.hardware import machine
from agent.models.add import add
from agent.settings import Settings
from agent.stations import local_engines
from tests.models.test_store import make_model

if TYPE_CHECKING:
    from pathlib import Path

    from agent.engines.local import LocalEngine
    from agent.placement import Station


def engines(store: Path, name: str, running: dict[Station, LocalEngine] | None = None) -> dict[Station, LocalEngine]:
    """Build the engines of a box without accelerators."""
    settings = Settings.model_validate({"models": {"text": name, "dir": store}, "engine": {"provider": "cpu"}})
    return local_engines(settings, machine.read(), running=running or {})


@pytest.mark.parametrize("made", ["cuda", "QNN"])
def test_a_model_that_was_made_for_another_provider_is_not_run_on_the_processor_without_a_word(
    tmp_path: Path, made: str
) -> None:
    options: object = {"provider_options": [{made: {}}]}
    folder = make_model(tmp_path / "mine", decoder={"filename": "model.onnx", "session_options": options})
    assert engines(tmp_path, str(folder))["text"].spec.left_out == (
        f"{made} is not used: the model was made for it, and may not load on the processor: see in `edge-slm doctor` "
        "what it lacks here, or name a model that was made for the processor"
    )


def test_of_a_model_that_was_made_for_the_processor_nothing_is_said(tmp_path: Path) -> None:
    make_model(tmp_path / "mine")
    assert engines(tmp_path, "mine")["text"].spec.left_out is None


def test_an_engine_is_another_when_its_models_files_are(tmp_path: Path) -> None:
    source, store = make_model(tmp_path / "stick" / "mine"), tmp_path / "store"
    add(source, store)
    running = engines(store, "mine")
    assert engines(store, "mine", running)["text"] is running["text"]
    (source / "model.onnx").write_bytes(b"retrained")
    add(source, store)
    assert engines(store, "mine", running)["text"] is not running["text"]
