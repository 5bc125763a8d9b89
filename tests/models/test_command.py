"""``edge-slm models`` as people run it: a process, which may be interrupted and killed."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from agent.cli import main
from agent.models import ModelError, verify
from tests.models.hub import COMMIT, FOLDER, REPOSITORY, Hub, Trouble
from tests.models.test_hub import FILES
from tests.models.test_store import make_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# More than half of the model, which is told when it is on disk.
HELD = 600_000


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Start a hub whose model is in the catalogue of this folder."""
    with Hub(dict(FILES)) as hub:
        entry = asdict(hub.known()["tiny"])
        (variant,) = entry["variants"].values()
        variant["hub"] = variant.pop("source")
        del entry["name"]
        # YAML, as all JSON is.
        (tmp_path / "catalogue.yaml").write_text(json.dumps({"tiny": entry}))
        yield hub


def start(hub: Hub, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a command with the store and the catalogue that are in a folder."""
    given = ["--dir", str(folder / "store"), "--set", f"models.catalogue_file={folder / 'catalogue.yaml'}"]
    command = [sys.executable, "-c", "from agent.cli import main; main()", "models", *arguments, *given]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "NO_PROXY": "*"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


Run: TypeAlias = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; its exit code, and what it said."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["models", *arguments, "--dir", str(tmp_path / "store")])
        out, error = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, error

    return run


@contextmanager
def half_pulled(hub: Hub, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Pull until a part of the weights is on disk and no more comes."""
    trouble = Trouble(hold_after=HELD)
    hub.trouble(f"/cdn/{FOLDER}/model.onnx.data", trouble)
    with start(hub, folder, "pull", "tiny") as process:
        assert trouble.held.wait(20)
        assert process.stderr
        assert "downloading: 1 of 1 MB\n" in iter(process.stderr.readline, "")
        yield process
        trouble.released.set()


def test_a_pull_that_was_killed_is_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    with half_pulled(hub, tmp_path) as process:
        process.send_signal(signal.SIGKILL)
    hub.asked.clear()
    with start(hub, tmp_path, "pull", "tiny") as again:
        out, _ = again.communicate(timeout=20)
    assert (again.returncode, out) == (0, f"tiny is ready in {tmp_path / 'store' / 'tiny'}\n")
    ((asked, sent),) = hub.bodies("model.onnx.data")
    assert asked == f"bytes={1_000_000 - sent}-"
    assert sent < 1_000_000 // 2 + 64_000
    assert verify("tiny", tmp_path / "store", hub.known()) == []


def test_nothing_but_the_model_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    with start(hub, tmp_path, "pull", "tiny") as process:
        process.communicate(timeout=20)
    assert process.returncode == 0
    asked = {each.path for each in hub.asked}
    assert {path for path in asked if FOLDER not in path} == {f"/api/models/{REPOSITORY}/revision/{COMMIT}"}


def test_control_c_leaves_one_sentence_and_what_is_here(hub: Hub, tmp_path: Path) -> None:
    with half_pulled(hub, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "edge-slm: stopped; the same command fetches what is still missing"
    assert "Traceback" not in error
    hub.asked.clear()
    with start(hub, tmp_path, "pull", "tiny") as again:
        again.communicate(timeout=20)
    ((_, sent),) = hub.bodies("model.onnx.data")
    assert sent < 1_000_000


def test_what_is_listed_tells_what_is_here_and_what_fits(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.cli.models.total_bytes", lambda: 4 << 30)
    make_model(tmp_path / "store" / "mine")
    make_model(tmp_path / "store" / "smollm2-135m")
    make_model(tmp_path / "store" / "phi-3.5-mini@cuda")
    code, out, _ = run("list", "--json")
    rows = {(row["name"], row["provider"]): (row["installed"], row["fits"]) for row in json.loads(out)}
    assert code == 0
    assert rows == {
        ("phi-3.5-mini", "cpu"): (False, False),
        ("phi-3.5-mini", "cuda"): (True, False),
        ("phi-3.5-vision", "cpu"): (False, False),
        ("phi-3.5-vision", "cuda"): (False, False),
        ("phi-4-mini", "cpu"): (False, False),
        ("smollm2-135m", "cpu"): (True, True),
        ("shapes-vision", "cpu"): (False, True),
    }
    _, out, _ = run("list")
    *models, note = out.splitlines()
    ends = [line.rpartition("  ")[2] for line in models]
    assert note == "(What fits is reckoned for one job at a time, and 3.7 GB for the service.)"
    assert ends == [
        "needs 4.8 GB of memory",
        "installed, but needs 4.1 GB of memory",
        "needs 6.3 GB of memory",
        "needs 5.4 GB of memory",
        "needs 7.2 GB of memory",
        "installed",
        "`edge-slm models pull shapes-vision`",
        "your own, installed",
    ]


def test_without_a_name_the_configured_models_are_pulled(run: Run, tmp_path: Path) -> None:
    own = str(make_model(tmp_path / "mine"))
    code, out, _ = run("pull", "--set", f"models.text={own}", "--set", "models.vision=shapes-vision")
    place = tmp_path / "store" / "shapes-vision"
    assert (code, out.splitlines()) == (
        0,
        [f"{own} is not in the catalogue, and left as it is", f"shapes-vision is ready in {place}"],
    )


def test_a_model_is_carried_in_checked_and_removed(run: Run, tmp_path: Path) -> None:
    make_model(tmp_path / "stick" / "mine")
    assert run("add", str(tmp_path / "stick" / "mine"))[:2] == (0, f"mine is ready in {tmp_path / 'store' / 'mine'}\n")
    assert run("verify", "mine")[:2] == (0, "mine is whole\n")
    assert run("remove", "mine")[:2] == (0, "mine is gone, and 0 MB are free again once no box runs it\n")


def test_a_model_that_the_configuration_names_is_removed_by_force_alone(run: Run, tmp_path: Path) -> None:
    make_model(tmp_path / "store" / "mine")
    configured = ("mine", "--set", "models.text=mine")
    code, _, error = run("remove", *configured)
    assert (code, error.count("\n")) == (2, 1)
    assert "the configuration names mine" in error
    assert run("remove", *configured, "--force")[0] == 0


def test_a_model_whose_folder_the_configuration_names_is_removed_by_force_alone(run: Run, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "store" / "mine")
    code, _, error = run("remove", "mine", "--set", f"models.text={folder.parent}/../store/mine")
    assert (code, folder.exists()) == (2, True)
    assert "the configuration names mine" in error


def test_a_model_that_was_configured_from_afar_is_configured(run: Run, tmp_path: Path) -> None:
    make_model(tmp_path / "store" / "mine")
    (tmp_path / "desired").mkdir()
    (tmp_path / "desired" / "good").write_text("models: {text: mine}")
    box = ("--set", f"state_dir={tmp_path}", "--set", "remote_config=true")
    assert run("remove", "mine", *box)[0] == 2


def own_catalogue(folder: Path, memory: int = 20) -> str:
    """Write a catalogue with a model for two providers, whose folders lie beside it; return the setting."""
    variants = {
        each: {"bytes": 10, "memory": memory, "folder": str(make_model(folder / f"for-{each}"))}
        for each in ("cpu", "cuda")
    }
    entry = {"title": "Barn", "licence": "MIT", "modalities": ["text"], "context": 4096, "variants": variants}
    (folder / "own.yaml").write_text(json.dumps({"barn": entry}))
    return f"models.catalogue_file={folder / 'own.yaml'}"


@pytest.mark.parametrize(
    ("wanted", "given", "pulled"),
    [
        ("cuda", [], "barn@cuda"),
        ("QNN", [], "barn"),
        ("cuda", ["--provider", "cpu"], "barn"),
        ("cuda", ["barn"], "barn"),
    ],
)
def test_without_a_name_the_variant_that_this_box_prefers_is_pulled(
    run: Run, tmp_path: Path, wanted: str, given: list[str], pulled: str
) -> None:
    set_ = ["--set", own_catalogue(tmp_path), "--set", "models.text=barn", "--set", f"engine.provider={wanted}"]
    assert run("pull", *given, *set_)[:2] == (0, f"barn is ready in {tmp_path / 'store' / pulled}\n")


def test_a_model_that_does_not_fit_the_service_is_told_in_numbers_before_it_is_pulled(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.cli.models.total_bytes", lambda: 8 * 10**9)
    code, _, error = run("pull", "barn", "--set", own_catalogue(tmp_path, memory=72 * 10**8))
    assert code == 0
    assert error.splitlines()[0] == (
        "barn needs 7.2 GB of memory for one job, and the service can give it 6.5 GB here: name a smaller model, "
        "unless this is for another box"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("verb", ["pull", "add"])
@pytest.mark.parametrize("ending", [ModelError("the connection failed: check the network"), KeyboardInterrupt()])
def test_what_ends_a_bar_is_told_on_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str, ending: BaseException
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        progress = named["progress"] if named else given[2]
        progress("downloading", 10_000_000, 40_000_000)
        raise ending

    monkeypatch.setattr(f"agent.cli.models.{verb}", fail)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with pytest.raises(SystemExit) as ended:
        main(["models", verb, "smollm2-135m", "--dir", str(tmp_path)])
    assert ended.value.code == (130 if isinstance(ending, KeyboardInterrupt) else 1)
    assert re.search(r"10 of 40 MB\nedge-slm: .+\n$", terminal.getvalue())
