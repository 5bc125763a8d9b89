"""What NVIDIA's driver and the installed wheels tell of a GPU, before anything is loaded onto it."""

import ctypes
import platform
from typing import Any

import onnxruntime  # type: ignore[import-untyped]
import onnxruntime_genai as og  # type: ignore[import-untyped]
import pytest

from agent.engines.worker import nvidia
from agent.engines.worker import provider as worker
from agent.engines.worker.nvidia import obstacle

_WHEELS = {"onnxruntime-gpu": "1.31.1", "onnxruntime-genai-cuda": "0.18.0"}


class _Driver:
    """A libcuda with devices of some compute capabilities."""

    def __init__(self, *devices: tuple[int, int]) -> None:
        self._devices = devices

    def cuInit(self, _flags: int) -> int:  # noqa: N802  NVIDIA's names
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self._devices)
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        device._obj.value = ordinal
        return 0 if ordinal < len(self._devices) else 101  # CUDA_ERROR_INVALID_DEVICE

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = self._devices[device.value][attribute - 75]
        return 0


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Make a box with both of PyPI's wheels on x86-64; what else it has, a test says."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(nvidia, "_from_pypi", _WHEELS.get)
    return monkeypatch


def _has(box: pytest.MonkeyPatch, *devices: tuple[int, int]) -> None:
    box.setattr(ctypes, "CDLL", lambda _name: _Driver(*devices))


def test_a_box_without_the_driver_may_have_it_later(box: pytest.MonkeyPatch) -> None:
    def absent(_name: str) -> None:
        raise OSError

    box.setattr(ctypes, "CDLL", absent)
    assert obstacle(0, [*_WHEELS]) == nvidia.Obstacle("NVIDIA's driver is not installed", lasting=False)


@pytest.mark.parametrize(("ordinal", "told"), [(0, "finds no device: see"), (1, "finds no device 1: set its option")])
def test_a_device_that_the_driver_does_not_count_is_told(box: pytest.MonkeyPatch, ordinal: int, told: str) -> None:
    _has(box, *[(8, 9)] * ordinal)
    found = obstacle(ordinal, [*_WHEELS])
    assert found is not None
    assert told in found.why


@pytest.mark.parametrize(
    ("machine", "capability", "runs"),
    [
        ("x86_64", (7, 5), True),
        ("x86_64", (8, 9), True),
        ("x86_64", (8, 7), True),  # by the code for 86
        ("x86_64", (6, 1), False),  # a GeForce GTX 10
        ("x86_64", (10, 0), False),  # a B200: neither 90 nor 120 runs on it
        ("aarch64", (9, 0), True),  # Grace Hopper
        ("aarch64", (12, 1), True),  # DGX Spark
        ("aarch64", (8, 7), False),  # a Jetson Orin: 89 does not run on it
        ("aarch64", (11, 0), False),  # a Jetson Thor
    ],
)
def test_a_gpu_for_which_the_wheels_hold_no_code_is_never_tried_again(
    box: pytest.MonkeyPatch, machine: str, capability: tuple[int, int], runs: bool
) -> None:
    box.setattr(platform, "machine", lambda: machine)
    _has(box, capability)
    found = obstacle(0, [*_WHEELS])
    assert (found is None) is runs
    if found is not None:
        assert found.lasting
        told, _, advice = found.why.partition(": ")
        assert told == f"onnxruntime-gpu 1.31.1 of PyPI has no code for this GPU (sm_{capability[0]}{capability[1]})"
        assert advice.startswith(
            "CUDA 13 knows none so old" if capability < (7, 5) else "it takes a build of one's own"
        )


def test_the_device_that_is_configured_is_judged(box: pytest.MonkeyPatch) -> None:
    _has(box, (6, 1), (8, 9))
    assert obstacle(1, [*_WHEELS]) is None


@pytest.mark.parametrize(("capability", "runs"), [((7, 0), False), ((10, 0), True)])
def test_of_a_later_wheel_only_what_cuda_13_compiles_for_is_known(
    box: pytest.MonkeyPatch, capability: tuple[int, int], runs: bool
) -> None:
    box.setattr(nvidia, "_from_pypi", lambda _name: "1.99.0")
    _has(box, capability)
    assert (obstacle(0, [*_WHEELS]) is None) is runs


def test_of_somebodys_own_build_nothing_is_presumed(box: pytest.MonkeyPatch) -> None:
    box.setattr(nvidia, "_from_pypi", lambda _name: None)
    _has(box, (8, 7))
    assert obstacle(0, [*_WHEELS]) is None


def test_a_wheel_of_pypi_is_known_by_its_tag() -> None:
    assert nvidia._from_pypi("onnxruntime") is not None
    assert nvidia._from_pypi("edge-slm-agent") is None  # installed from this checkout
    assert nvidia._from_pypi("onnxruntime-gpu") is None  # not installed


@pytest.mark.parametrize(
    ("provider", "wheels"),
    [("cuda", ("onnxruntime-gpu", "onnxruntime-genai-cuda")), ("NvTensorRtRtx", ("onnxruntime-genai-cuda",))],
)
def test_the_worker_asks_for_its_device_before_it_loads_a_model(
    monkeypatch: pytest.MonkeyPatch, provider: str, wheels: tuple[str, ...]
) -> None:
    asked = []

    def refuse(*arguments: object) -> nvidia.Obstacle:
        asked.append(arguments)
        return nvidia.Obstacle("no code for it", lasting=True)

    monkeypatch.setattr(og, "is_cuda_available", lambda: True)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(nvidia, "obstacle", refuse)
    with pytest.raises(worker.ProviderError, match="no code for it") as refused:
        worker.Provider(provider, options={"device_id": "1"}).prepare()
    assert refused.value.lasting
    assert asked == [(1, wheels)]
