"""A provider that fails, and the next one in its place: with real processes, and the real worker where it refuses."""

import asyncio
import json
import os
import shutil
import signal
import sys
from contextlib import aclosing
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent import status
from agent.contract.errors import JobError
from agent.engines import ladder
from agent.engines.base import EngineLost, Started
from agent.engines.local import LocalEngine
from agent.engines.spec import Rung
from agent.engines.watchdog import Patience
from agent.errors import UserError
from agent.hardware import machine
from agent.hardware.accelerators import Accelerator, Kind
from agent.models import ModelError
from agent.settings import Settings
from agent.stations import local_engines
from tests.engines.conftest import new_engine
from tests.engines.running import PHOTOGRAPH, answer, job, ready, serving, shown
from tests.engines.workers import IMPATIENT, READY, WELL, worker_on

FAST = Rung("Fast", Path("fast"))
WATCHFUL = Patience(watch_s=0.05)
FRANCE = "What is the capital of France?"
SAYS_NO = "say(Failed('there is no such device')); sys.exit(1)"
HANGS = "os.read(0, 65536); time.sleep(60)"
# It cannot load the model the first time.
MENDED = f"""
import pathlib
if not pathlib.Path({{mark!r}}).exists():
    pathlib.Path({{mark!r}}).touch()
    sys.exit(1)
say(Ready(100, provider, 0.0))
{WELL}"""
# A real worker whose provider is the processor by another name, and fails some calls.
LOSES = """
import sys
from agent.engines.worker import __main__ as worker, model, provider
if "--provider" in sys.argv:
    provider.Provider.choose = lambda *_: None
    faults, generate = iter(range({faults})), model.Cache.generate
    def lost(cache):
        if next(faults, None) is not None: raise RuntimeError("the device was lost")
        return generate(cache)
    model.Cache.generate = lost
sys.exit(worker.main())
"""
# Each job takes until its file is there.
SLOW = """
import pathlib
for message in told():
    if isinstance(message, Submit):
        say(Started(message.job, 1, 0))
        while not pathlib.Path({gate!r}).exists(): time.sleep(0.01)
        say(Done(message.job, "stop", 1, 1, 0))
"""


def without(package: str) -> pytest.MarkDecorator:
    """Skip a test where a package is installed, as on a box that has an accelerator for it."""
    there = any(each.name == package for each in distributions())
    return pytest.mark.skipif(there, reason=f"{package} is installed, and the test is of a box without it")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what was set aside tried again after a moment."""
    monkeypatch.setattr(ladder, "_FIRST_S", 0.3)


async def test_a_provider_that_cannot_load_the_model_gives_way_to_the_next_at_once(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, FAST, command=worker_on("Fast", Fast=SAYS_NO, cpu=WELL))
    async with serving(engine):
        await ready(engine)

        assert engine.health.provider == "cpu"
        assert engine.health.detail is None
        assert engine.health.provider_detail == "Fast is not used: there is no such device"
        assert (await answer(engine, job(FRANCE))).text == "x"


async def test_while_the_next_provider_loads_the_health_tells_of_that_one(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    loads = f"import pathlib\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n{READY}{WELL}"
    engine = new_engine(tmp_path, FAST, command=worker_on("Fast", "cpu", Fast=SAYS_NO, cpu=loads))
    async with serving(engine):
        while engine.health.provider == "Fast":
            await engine.changed()
        assert engine.health.state == "loading"
        assert engine.health.detail == "there is no such device"
        assert engine.health.provider_detail == "Fast is not used: there is no such device"
        gate.touch()
        await ready(engine)

        assert engine.health.provider == "cpu"


async def test_a_window_that_ends_before_the_models_own_is_told_in_the_log(tmp_path: Path) -> None:
    narrow = f"say(Ready(4096, provider, 0.0, narrowed=True))\n{WELL}"
    engine = new_engine(tmp_path, command=worker_on("cpu", cpu=narrow))
    with capture_logs() as logged:
        async with serving(engine):
            await ready(engine)

    assert [each["context"] for each in logged if each["event"] == "engine.window_narrowed"] == [4096]


async def test_a_worker_that_has_said_that_it_failed_is_not_waited_for(tmp_path: Path) -> None:
    hangs = "say(Failed('there is no such device')); time.sleep(60)"
    engine = new_engine(tmp_path, FAST, command=worker_on("Fast", Fast=hangs, cpu=WELL))
    async with serving(engine), asyncio.timeout(10):
        await ready(engine)

        assert engine.health.provider_detail == "Fast is not used: there is no such device"


async def test_a_provider_that_works_is_used_and_nothing_is_said_against_it(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, FAST, command=worker_on(Fast=WELL, cpu=WELL))
    async with serving(engine):
        await ready(engine)

        assert (engine.health.provider, engine.health.provider_detail) == ("Fast", None)


async def test_a_provider_that_crashes_natively_while_it_loads_gives_way(tmp_path: Path) -> None:
    crashes = "os.kill(os.getpid(), 11)"
    engine = new_engine(tmp_path, FAST, command=worker_on("Fast", Fast=crashes, cpu=WELL))
    async with serving(engine):
        await ready(engine)

        assert engine.health.provider == "cpu"
        assert engine.health.provider_detail == (
            "Fast is not used: the inference process ended while it loaded the model "
            "(signal 11, Segmentation fault): see the box's log"
        )


async def test_a_worker_that_is_killed_at_work_comes_back_on_the_next_provider(tmp_path: Path) -> None:
    starts = "next(told()); say(Started(1, 1, 0)); time.sleep(60)"
    engine = new_engine(tmp_path, FAST, command=worker_on(Fast=starts, cpu=WELL))
    with capture_logs() as logged:
        async with serving(engine):
            await ready(engine)
            async with aclosing(engine.run(job(FRANCE))) as events:
                assert isinstance(await anext(events), Started)
                assert engine._child
                os.kill(engine._child.pid, signal.SIGKILL)
                with pytest.raises(EngineLost):
                    await anext(events)
            assert (await answer(engine, job(FRANCE))).text == "x"

    assert engine.health.provider_detail == "Fast is not used: the inference process died (signal 9, Killed)"
    (left,) = (entry for entry in logged if entry["event"] == "engine.provider_set_aside")
    assert (left["provider"], left["reason"]) == ("Fast", "the inference process died (signal 9, Killed)")


async def test_a_provider_that_hangs_over_a_job_gives_way(tmp_path: Path) -> None:
    engine = new_engine(tmp_path, FAST, command=worker_on(Fast=HANGS, cpu=WELL), patience=IMPATIENT)
    async with serving(engine):
        await ready(engine)
        with pytest.raises(EngineLost):
            await answer(engine, job(FRANCE))

        assert (await answer(engine, job(FRANCE))).text == "x"
        assert "it hung" in str(engine.health.provider_detail)


async def test_the_engine_has_failed_only_when_every_provider_has(tmp_path: Path) -> None:
    other = Rung("Other", Path("other"))
    dies = "sys.exit(1)"
    command = worker_on("Fast", "Other", "cpu", Fast=dies, Other=dies, cpu=SAYS_NO)
    engine = new_engine(tmp_path, FAST, other, command=command)
    with capture_logs() as logged:
        async with serving(engine):
            while (health := await engine.changed()).state != "failed":
                pass

    assert [entry["provider"] for entry in logged if entry["event"] == "engine.provider_set_aside"] == ["Fast", "Other"]
    assert health.detail == "there is no such device"


async def test_a_worker_that_has_grown_too_far_is_replaced_on_the_same_provider(tmp_path: Path) -> None:
    leaks = "kept = []\nfor message in told():\n    kept.append(bytes([1]) * (80 << 20)); answer(message.job)"
    engine = new_engine(tmp_path, FAST, command=worker_on(Fast=leaks, cpu=WELL), leak_bytes=60 << 20)
    with capture_logs() as logged:
        async with serving(engine):
            await answer(engine, job(FRANCE))
            await ready(engine)

    assert "engine.worker_outgrown" in {entry["event"] for entry in logged}
    assert (engine.health.provider, engine.health.provider_detail) == ("Fast", None)


@pytest.mark.usefixtures("soon")
async def test_a_provider_that_was_set_aside_is_tried_again_at_an_idle_moment(tmp_path: Path) -> None:
    command = worker_on("Fast", Fast=MENDED.format(mark=str(tmp_path / "mark")), cpu=WELL)
    engine = new_engine(tmp_path, FAST, command=command, patience=WATCHFUL)
    async with serving(engine):
        await ready(engine)
        assert engine.health.provider == "cpu"
        while engine.health.provider != "Fast":
            await engine.changed()
        await ready(engine)

        assert (engine.health.state, engine.health.provider_detail) == ("ready", None)


@pytest.mark.usefixtures("soon")
async def test_under_steady_load_no_job_is_started_until_the_better_provider_was_tried_and_none_is_touched(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    command = worker_on("Fast", Fast=SAYS_NO, cpu=SLOW.format(gate=str(gate)))
    engine = new_engine(tmp_path, FAST, command=command, patience=WATCHFUL)
    async with serving(engine):
        await ready(engine)
        running = asyncio.create_task(answer(engine, job(FRANCE)))
        while (health := await engine.changed()).state == "ready":
            pass
        assert health.detail == "a better provider is tried again: jobs wait for it"
        waiting = asyncio.create_task(answer(engine, job(FRANCE)))
        gate.touch()

        assert (await running).done
        assert (await waiting).done


def changed(model: Path, folder: Path, **sections: dict[str, object]) -> Path:
    """Copy a model by links, and put session options into sections of its genai_config.json."""
    shutil.copytree(model, folder, copy_function=os.symlink, ignore=shutil.ignore_patterns("manifest.json"))
    config = json.loads((model / "genai_config.json").read_text())
    for section, options in sections.items():
        config["model"][section].setdefault("session_options", {}).update(options)
    (folder / "genai_config.json").unlink()
    (folder / "genai_config.json").write_text(json.dumps(config))
    return folder


def for_cuda(model: Path, folder: Path) -> Path:
    """Copy a model as its variant for CUDA."""
    return changed(model, folder, decoder={"provider_options": [{"cuda": {"enable_cuda_graph": "0"}}]})


def told(settings: Settings, engine: LocalEngine) -> dict[str, object]:
    """Return what the box's info says of its one model."""
    (model,) = json.loads(status.info(settings, {"text": engine.health}))["models"]
    return {name: model[name] for name in ("name", "state", "provider", "provider_detail", "detail")}


def configured(tmp_path: Path, model: str, **engine: object) -> Settings:
    return Settings.model_validate({"models": {"text": model, "dir": tmp_path}, "engine": {"threads": 1} | engine})


@without("onnxruntime-genai-cuda")
async def test_cuda_on_a_box_without_it_comes_up_on_the_processor_and_the_info_says_why(
    model_folder: Path, tmp_path: Path
) -> None:
    folder = for_cuda(model_folder, tmp_path / "made-for-cuda")
    settings = configured(tmp_path, str(folder), provider="cuda")
    engine = local_engines(settings, machine.read())["text"]
    async with serving(engine):
        await ready(engine)

        assert told(settings, engine) == {
            "name": "made-for-cuda",
            "state": "ready",
            "provider": "cpu",
            "provider_detail": "cuda is not used: onnxruntime-genai is installed in place of onnxruntime-genai-cuda: "
            "run `sudo scripts/install --extra cuda`, or make a new virtual environment with that extra",
            "detail": None,
        }
        assert (await answer(engine, job(FRANCE))).text == "The capital of France is Paris."


async def test_a_part_of_a_model_that_names_a_provider_for_itself_is_run_on_the_processor_too(
    vision_folder: Path, tmp_path: Path
) -> None:
    options: dict[str, object] = {"provider_options": [{"cuda": {}}]}
    engine = new_engine(changed(vision_folder, tmp_path / "model", decoder=options, vision=options), slots=1)
    async with serving(engine):
        await ready(engine)

        assert (await answer(engine, shown("What is it?", PHOTOGRAPH, max_tokens=4))).done


@pytest.mark.parametrize(("faults", "used"), [(1, "Fast"), (1000, "cpu")])
async def test_a_device_that_was_lost_costs_the_worker_and_a_call_that_failed_its_job_alone(
    model_folder: Path, tmp_path: Path, faults: int, used: str
) -> None:
    script = tmp_path / "losing.py"
    script.write_text(LOSES.format(faults=faults))
    engine = new_engine(model_folder, Rung("Fast", model_folder), command=[sys.executable, str(script)])
    async with serving(engine):
        await ready(engine)
        assert engine.health.provider == "Fast"
        with pytest.raises((EngineLost, JobError)) as ended:
            await answer(engine, job(FRANCE))
        assert isinstance(ended.value, EngineLost) == (used == "cpu")

        assert (await answer(engine, job(FRANCE))).text == "The capital of France is Paris."
        assert engine.health.provider == used


@without("onnxruntime-ep-webgpu")
async def test_a_plugin_that_is_not_installed_is_named_and_never_tried_again(model_folder: Path) -> None:
    rung = Rung("WebGPU", model_folder, library="onnxruntime_ep_webgpu")
    engine = new_engine(model_folder, rung)
    async with serving(engine):
        await ready(engine)

        assert engine.health.provider_detail == (
            "WebGPU is not used: the package onnxruntime-ep-webgpu is not installed"
        )
        assert not engine._ladder.due(float("1e9"))


def test_a_provider_is_left_out_where_no_variant_of_the_model_is_made_for_it(
    model_store: Path,
) -> None:
    settings = configured(model_store, "smollm2-135m", provider="cuda")
    spec = local_engines(settings, machine.read())["text"].spec

    assert [rung.provider for rung in spec.rungs] == ["cpu"]
    assert spec.left_out == (
        "cuda is not used: smollm2-135m was not made for it, and nothing else is to be had: name a model that was"
    )


def test_each_provider_has_the_variant_that_is_made_for_it(model_folder: Path, tmp_path: Path) -> None:
    cuda = for_cuda(model_folder, tmp_path / "smollm2-135m@cuda")
    shutil.copytree(model_folder, tmp_path / "smollm2-135m", copy_function=os.symlink)
    settings = configured(tmp_path, "smollm2-135m", provider="cuda", provider_options={"device_id": "1"})
    spec = local_engines(settings, machine.read())["text"].spec

    assert spec.name == "smollm2-135m"
    assert [(rung.provider, rung.folder, rung.options) for rung in spec.rungs] == [
        ("cuda", cuda, (("device_id", "1"),)),
        ("cpu", tmp_path / "smollm2-135m", ()),
    ]


def test_an_engine_that_would_be_the_same_is_kept(model_store: Path) -> None:
    settings = configured(model_store, "smollm2-135m")
    running = local_engines(settings, machine.read())
    changed = configured(model_store, "smollm2-135m", slots=2)

    assert local_engines(settings, machine.read(), running=running)["text"] is running["text"]
    assert local_engines(changed, machine.read(), running=running)["text"] is not running["text"]


@pytest.mark.parametrize(
    ("key", "value", "kept"), [("drain_s", 7.0, True), ("queue.max_jobs", 7, True), ("limits.max_tokens", 7, False)]
)
def test_what_a_worker_is_not_told_keeps_it(model_store: Path, key: str, value: float, *, kept: bool) -> None:
    own = {"models": {"text": "smollm2-135m", "dir": model_store}}
    section, _, last = key.partition(".")
    changed = {**own, section: {last: value} if last else value}
    before = local_engines(Settings.model_validate(own), machine.read())
    after = local_engines(Settings.model_validate(changed), machine.read(), running=before)
    assert (after["text"] is before["text"]) is kept


def test_without_a_word_a_step_takes_every_fast_core(model_store: Path) -> None:
    settings = Settings.model_validate({"models": {"text": "smollm2-135m", "dir": model_store}})
    here = machine.read()

    assert local_engines(settings, here)["text"].spec.threads == here.processor.fast_cores


def with_card(memory_bytes: int, kind: Kind = "nvidia-gpu") -> machine.Machine:
    """Return this machine with less memory, and a graphics card that has its own, or another accelerator."""
    card = Accelerator(kind, "a card", "/dev/nvidia0", allowed=True)
    return replace(machine.read(), memory_bytes=memory_bytes, accelerators=(card,))


@pytest.mark.parametrize(("kind", "own"), [("nvidia-gpu", True), ("jetson-gpu", False)])
def test_caches_are_the_boxs_memory_but_on_a_graphics_card(
    model_folder: Path, tmp_path: Path, kind: Kind, own: bool
) -> None:
    for_cuda(model_folder, tmp_path / "model")
    spec = local_engines(configured(tmp_path, "model", provider="cuda"), with_card(8 << 30, kind))["text"].spec

    assert [("--own-memory" in spec.arguments(rung)) for rung in spec.rungs] == [own, False]


def test_a_model_that_does_not_fit_into_the_memory_is_refused_unless_a_card_of_its_own_has_it(
    model_folder: Path, tmp_path: Path
) -> None:
    for_cuda(model_folder, tmp_path / "model")
    card = with_card(300 << 20)

    assert local_engines(configured(tmp_path, "model", provider="cuda"), card)["text"].spec.rungs[0].own_memory
    with pytest.raises(ModelError, match="this box can give them"):
        local_engines(configured(tmp_path, "model", provider="cpu"), card)


def test_a_card_has_no_processor_behind_it_where_the_model_could_never_be_in_the_boxs_memory(
    model_folder: Path, tmp_path: Path
) -> None:
    for_cuda(model_folder, tmp_path / "model")
    settings = configured(tmp_path, "model", provider="cuda")
    small, large = (local_engines(settings, with_card(size))["text"].spec for size in (300 << 20, 8 << 30))

    assert [rung.provider for rung in small.rungs] == ["cuda"]
    assert small.left_out
    assert "if cuda fails, there is nothing to fall back to: the models need" in small.left_out
    assert ([rung.provider for rung in large.rungs], large.left_out) == (["cuda", "cpu"], None)


def test_a_model_of_which_the_processors_variant_is_not_installed_says_that_it_cannot_fall_back(
    model_folder: Path, tmp_path: Path
) -> None:
    for_cuda(model_folder, tmp_path / "smollm2-135m@cuda")
    spec = local_engines(configured(tmp_path, "smollm2-135m", provider="cuda"), machine.read())["text"].spec

    assert [rung.provider for rung in spec.rungs] == ["cuda"]
    assert spec.left_out == (
        "if cuda fails, there is nothing to fall back to: run `edge-slm models pull smollm2-135m`, and restart the box"
    )


def test_a_box_without_an_engine_says_which_to_install(monkeypatch: pytest.MonkeyPatch, model_store: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    with pytest.raises(UserError, match=r"sudo scripts/install --extra cpu"):
        local_engines(configured(model_store, "smollm2-135m"), machine.read())
