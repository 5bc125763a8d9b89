"""Models that come with the package: a small folder stands for one, and `shapes-vision` is one."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NoReturn

import pytest

from agent.models import Catalogue, Description, Entry, catalogue, describe, pull, verify
from agent.models.catalogue import LocalFolder, Variant
from tests.models.test_store import make_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_model(tmp_path / "package")


@pytest.fixture
def known(package: Path) -> Catalogue:
    """Make a catalogue with the model that lies in the package."""
    variants = {"cpu": Variant(bytes=200, memory=1000, source=LocalFolder(package))}
    return {"mine": Entry("mine", "Mine", "0BSD", ("text",), context=4096, variants=variants)}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_a_pulled_model_is_whole(known: Catalogue, store: Path) -> None:
    assert pull("mine", store, known=known) == store / "mine"
    assert verify("mine", store, known) == []


def test_no_network_is_used(known: Catalogue, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", fail)
    monkeypatch.setenv("PATH", "")
    pull("mine", store, known=known)


def test_a_second_pull_changes_nothing(known: Catalogue, store: Path) -> None:
    before = pull("mine", store, known=known).stat().st_ino
    assert pull("mine", store, known=known).stat().st_ino == before


def test_a_damaged_model_is_repaired(known: Catalogue, store: Path) -> None:
    (pull("mine", store, known=known) / "model.onnx").write_bytes(b"gone")
    pull("mine", store, known=known)
    assert verify("mine", store, known) == []


def test_a_newer_package_brings_its_own(package: Path, known: Catalogue, store: Path) -> None:
    pull("mine", store, known=known)
    (package / "model.onnx").write_bytes(b"trained for longer")
    assert (pull("mine", store, known=known) / "model.onnx").read_bytes() == b"trained for longer"
    assert verify("mine", store, known) == []


def test_what_the_package_has_read_only_the_stores_owner_may_write(
    package: Path, known: Catalogue, store: Path
) -> None:
    (package / "model.onnx").chmod(0o444)
    assert (pull("mine", store, known=known) / "model.onnx").stat().st_mode & 0o200


def test_shapes_vision_is_what_the_catalogue_says(tmp_path: Path) -> None:
    entry = catalogue()["shapes-vision"]
    found = describe(pull("shapes-vision", tmp_path))
    assert found == Description("phi3v", entry.modalities, entry.context, found.bytes)
    assert found.bytes == pytest.approx(entry.variants["cpu"].bytes, rel=0.02)
