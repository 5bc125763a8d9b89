"""Asking for providers in processes that may die of it."""

import signal
import sys

import pytest

from agent.doctor.providers import Probed, probe, provider
from agent.hardware.choice import PROVIDERS

_WEBGPU = next(each for each in PROVIDERS if each.name == "WebGPU")


def _python(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program)


def test_the_real_runtime_tells_its_devices() -> None:
    told = probe().told
    assert told is not None
    assert [device["provider"] for device in told["devices"]] == ["CPUExecutionProvider"]
    assert told["failed"] is None


def test_a_provider_that_is_not_installed_is_told_in_the_workers_own_words() -> None:
    (finding,) = provider(_WEBGPU, probe("WebGPU", "onnxruntime_ep_webgpu"))
    assert finding.mark == "wrong"
    assert "onnxruntime-ep-webgpu is not installed" in finding.text


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGILL, signal.SIGABRT])
def test_a_native_crash_is_told_by_its_signal(number: signal.Signals) -> None:
    crash = f"import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), {number})"
    assert probe(command=_python(crash)) == Probed(None, f"crashed with {number.name}")


def test_a_hang_is_ended() -> None:
    hang = "import signal; signal.pause()"
    assert probe(command=_python(hang), patience_s=0.3) == Probed(None, "hung, and was killed after 0.3 s")


def test_what_a_library_prints_besides_does_not_matter() -> None:
    assert probe(command=_python("print('hello'); print('{\"devices\": []}')")) == Probed({"devices": []})


def test_a_probe_that_fails_is_told_by_its_last_line() -> None:
    assert probe(command=_python("raise ImportError('libgomp.so.1')")).why == (
        "ended with exit code 1: ImportError: libgomp.so.1"
    )


def test_a_library_that_crashes_is_said_not_to_be_used() -> None:
    (finding,) = provider(_WEBGPU, Probed(None, "crashed with SIGSEGV"))
    assert (finding.mark, finding.stops) == ("wrong", False)
    assert finding.text == "its library crashed with SIGSEGV; it is not used: see docs/platforms.md"
