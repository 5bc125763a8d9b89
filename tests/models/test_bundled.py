"""Models that come with the package: a small folder stands for one, and `shapes-vision` is one."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NoReturn

import pytest

from agent.models import CATALOGUE, Description, Entry, describe, pull, verify
from agent.models.catalogue import Bundled
from tests.models.test_store import make_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a model into the catalogue that lies in this folder."""
    folder = make_model(tmp_path / "package")
    entry = Entry("mine", "Mine", "0BSD", ("text",), context=4096, bytes=200, source=Bundled(folder))
    monkeypatch.setitem(CATALOGUE, "mine", entry)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.mark.usefixtures("package")
def test_a_pulled_model_is_whole(store: Path) -> None:
    assert pull("mine", store) == store / "mine"
    assert verify("mine", store) == []


@pytest.mark.usefixtures("package")
def test_no_network_is_used(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", fail)
    monkeypatch.setenv("PATH", "")
    pull("mine", store)


@pytest.mark.usefixtures("package")
def test_a_second_pull_changes_nothing(store: Path) -> None:
    before = pull("mine", store).stat().st_ino
    assert pull("mine", store).stat().st_ino == before


@pytest.mark.usefixtures("package")
def test_a_damaged_model_is_repaired(store: Path) -> None:
    (pull("mine", store) / "model.onnx").write_bytes(b"gone")
    pull("mine", store)
    assert verify("mine", store) == []


def test_a_newer_package_brings_its_own(package: Path, store: Path) -> None:
    pull("mine", store)
    (package / "model.onnx").write_bytes(b"trained for longer")
    assert (pull("mine", store) / "model.onnx").read_bytes() == b"trained for longer"
    assert verify("mine", store) == []


def test_what_the_package_has_read_only_the_stores_owner_may_write(package: Path, store: Path) -> None:
    (package / "model.onnx").chmod(0o444)
    assert (pull("mine", store) / "model.onnx").stat().st_mode & 0o200


def test_shapes_vision_is_what_the_catalogue_says(tmp_path: Path) -> None:
    entry = CATALOGUE["shapes-vision"]
    found = describe(pull("shapes-vision", tmp_path))
    assert found == Description("phi3v", entry.modalities, entry.context, found.bytes)
    assert found.bytes == pytest.approx(entry.bytes, rel=0.02)
