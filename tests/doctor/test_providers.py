"""Asking for providers in processes that may die of it."""

import signal
import sys

import pytest

from agent.doctor.finding import Finding
from agent.doctor.providers import Probed, probe, provider, used
from agent.hardware.choice import PROVIDERS
from agent.hardware.machine import read
from agent.hardware.packages import Package, remedy
from agent.settings import Engine

_WEBGPU = next(each for each in PROVIDERS if each.name == "WebGPU")
_INSTALLED = {"onnxruntime-ep-webgpu": Package("0.4.0")}


def _python(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program)


def test_the_real_runtime_tells_its_devices() -> None:
    told = probe().told
    assert told is not None
    assert [device["provider"] for device in told["devices"]] == ["CPUExecutionProvider"]
    assert told["failed"] is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WebGPU", f"is not installed: {remedy('webgpu')}"),
        ("VitisAI", "is not installed, and comes from its maker alone: see docs/platforms.md"),
    ],
)
def test_a_provider_that_is_not_installed_is_told_with_where_it_is_from(name: str, text: str) -> None:
    each = next(each for each in PROVIDERS if each.name == name)
    assert [*provider(each, Probed({"devices": [], "failed": None}), {})] == [Finding(name, "wrong", text)]


def test_a_provider_that_cannot_be_asked_is_not_judged() -> None:
    each = next(each for each in PROVIDERS if each.name == "VitisAI")
    (finding,) = provider(each, Probed({"devices": [], "failed": None}), {"onnxruntime-vitisai": Package("1.31")})
    assert finding.mark == "told"
    assert finding.text.endswith("only a model tells if it works")


def test_what_the_worker_would_say_is_told() -> None:
    (finding,) = provider(_WEBGPU, probe("WebGPU", "onnxruntime_ep_webgpu"), _INSTALLED)
    assert finding.mark == "wrong"
    assert "onnxruntime-ep-webgpu is not installed" in finding.text  # it is not: the list of packages is made up


def test_the_provider_in_use_is_told_with_what_cannot_be_used() -> None:
    (finding,) = used(Engine.model_validate({"provider": "QNN"}), read(), {"QNN"})
    assert finding.text.startswith("cpu: the processor, ")
    assert finding.text.endswith("; QNN cannot be used")
    assert finding.facts == {"provider": "cpu"}


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGILL, signal.SIGABRT])
def test_a_native_crash_is_told_by_its_signal(number: signal.Signals) -> None:
    crash = f"import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), {number})"
    assert probe(command=_python(crash)) == Probed(None, f"crashed with {number.name}")


def test_a_hang_is_ended_and_may_have_been_a_slow_start() -> None:
    hang = "import signal; signal.pause()"
    assert probe(command=_python(hang), patience_s=0.3) == Probed(None, "took longer than 0.3 s: run the doctor again")


def test_what_a_library_prints_besides_does_not_matter() -> None:
    assert probe(command=_python("print('hello'); print('{\"devices\": []}')")) == Probed({"devices": []})


def test_a_probe_that_fails_is_told_by_its_last_line() -> None:
    assert probe(command=_python("raise ImportError('libgomp.so.1')")).why == (
        "ended with exit code 1: ImportError: libgomp.so.1"
    )


def test_a_library_that_crashes_is_said_not_to_be_used() -> None:
    (finding,) = provider(_WEBGPU, Probed(None, "crashed with SIGSEGV"), _INSTALLED)
    assert (finding.mark, finding.stops) == ("wrong", False)
    assert finding.text == "its library crashed with SIGSEGV; it is not used: see docs/platforms.md"
