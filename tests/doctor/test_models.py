"""The configured models, as the doctor sees them."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.doctor import models as doctor
from agent.doctor.models import models
from agent.engines.local import LocalEngine
from agent.engines.spec import Rung, Spec
from agent.hardware.machine import Machine, read
from agent.models.store import CONFIG, write_manifest
from agent.settings import Engine, Models, Settings

_BUNDLED = Path(__file__).parents[2] / "agent/models/shapes-vision"


@pytest.fixture(scope="module")
def here() -> Machine:
    return read()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Install the small model that sees as if it were somebody's own."""
    shutil.copytree(_BUNDLED, tmp_path / "mine")
    write_manifest(tmp_path / "mine", {})
    return tmp_path / "mine"


def _settings(folder: Path, provider: str = "auto") -> Settings:
    engine = Engine.model_validate({"provider": provider})
    return Settings(state_dir=folder.parent, models=Models(text=None, vision=str(folder)), engine=engine)


def test_a_whole_model_is_told_with_what_will_run_it(folder: Path, here: Machine) -> None:
    (found,) = models(_settings(folder), here, ())
    assert (found.check, found.mark) == ("vision model", "well")
    assert found.text.startswith("mine runs on cpu: the processor, ")


def test_a_provider_that_is_not_really_here_is_passed_over(folder: Path, here: Machine) -> None:
    (found,) = models(_settings(folder, "OpenVINO"), here, {"OpenVINO"})
    assert found.text.startswith("mine runs on cpu: ")
    assert found.text.endswith("; OpenVINO cannot be used")


def test_a_provider_that_is_here_is_told_with_what_stands_behind_it(folder: Path, here: Machine) -> None:
    (found,) = models(_settings(folder, "OpenVINO"), here, ())
    assert found.text == "mine runs on OpenVINO: engine.provider names it; if it fails, cpu"


def test_a_model_that_was_not_made_for_the_provider_is_told_so(folder: Path, here: Machine) -> None:
    (found,) = models(_settings(folder, "cuda"), here, ())
    assert found.text.startswith("mine runs on cpu: ")
    assert "cuda is not used" in found.text


def test_a_model_that_is_not_here_stops_the_box(tmp_path: Path, here: Machine) -> None:
    (found,) = models(Settings(state_dir=tmp_path), here, ())
    assert found.stops
    assert "is not installed" in found.text


def test_a_model_whose_only_provider_cannot_be_used_stops_the_box(
    folder: Path, here: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LocalEngine(Spec("mine", (Rung("cuda", folder),), slots=1, threads=1, default_max_tokens=8))
    monkeypatch.setattr(doctor, "local_engines", lambda *_: {"vision": engine})
    (found,) = models(_settings(folder), here, {"cuda"})
    assert (found.check, found.mark, found.stops) == ("vision model", "wrong", True)
    assert found.text.startswith("mine runs on cuda alone, which cannot be used: mend what is said above, or name a ")


def test_a_missing_file_stops_the_box(folder: Path, here: Machine) -> None:
    (folder / "vision.onnx").unlink()
    found, _ = models(_settings(folder), here, ())
    assert found.stops
    assert found.text == f"mine: vision.onnx, which {CONFIG} names, is missing: install the model again"


def test_a_truncated_file_stops_the_box(folder: Path, here: Machine) -> None:
    size = (folder / "text.onnx").stat().st_size
    with (folder / "text.onnx").open("r+b") as file:
        file.truncate(size - 1)
    found, _ = models(_settings(folder), here, ())
    assert found.stops
    assert found.text == f"mine: text.onnx has not its {size:,} bytes: install the model again"


def _open_to_others(folder: Path) -> bool:
    return all(each.stat().st_mode & stat.S_IXOTH for each in (folder, *folder.parents))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(not _open_to_others(Path(sys.prefix)), reason="other users cannot run this environment's Python")
def test_another_users_folder_is_told_and_breaks_no_check(tmp_path: Path) -> None:
    # As a person who asks about the box's state, which systemd keeps in /var/lib/private.
    program = f"""
import os
from pathlib import Path
from agent.doctor import box, models
from agent.hardware.machine import read
from agent.settings import Settings
settings, here = Settings(state_dir=Path({str(tmp_path / "private" / "box")!r})), read()
os.setuid(65534)
for found in (*box.disk(settings), *models.models(settings, here, ())):
    print(found.stops, "run it as the user that the box runs as" in found.text, "cannot be made" in found.text)
"""
    (tmp_path / "private").mkdir(mode=0o700)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["True True False", "True True False"]
