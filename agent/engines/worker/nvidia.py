"""NVIDIA's driver, and whether the installed wheels hold machine code for its device."""

import ctypes
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

# What PyPI's wheels hold machine code for, read from the fat binaries in them in November 2026. There is no PTX in
# them, of which a driver could make code for other devices. Code for 86 runs on 89, and not on 80 or 90 (CUDA's
# programming guide, "Binary Compatibility").
_CODE = {
    ("onnxruntime-gpu", "1.31.1", "x86_64"): (75, 80, 86, 89, 90, 120),
    ("onnxruntime-genai-cuda", "0.18.0", "x86_64"): (75, 80, 86, 89, 90, 120),
    ("onnxruntime-gpu", "1.31.1", "aarch64"): (89, 90, 120, 121),
    ("onnxruntime-genai-cuda", "0.18.0", "aarch64"): (89, 90, 100, 103, 120, 121),
}
# Other versions on PyPI are of CUDA 13 as well, whose compiler makes code for nothing before Turing.
_LEAST = 75
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a device cannot be used; `lasting` if no waiting will change that."""

    why: str
    lasting: bool = False


def obstacle(ordinal: int, wheels: Sequence[str]) -> Obstacle | None:
    """Ask NVIDIA's driver for a device; None if it can be used.

    The driver and not onnxruntime, whose list is of PCI devices: a Jetson's GPU is none.

    Args:
        ordinal: which device, as CUDA counts them.
        wheels: the distributions of which code is run on it.

    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Obstacle("NVIDIA's driver is not installed")
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return Obstacle("NVIDIA's driver finds no device: see `nvidia-smi`")
    if driver.cuDeviceGet(ctypes.byref(device), ordinal) != 0:
        return Obstacle(f"NVIDIA's driver finds no device {ordinal}: set its option device_id to one of `nvidia-smi`")
    parts = [ctypes.c_int(), ctypes.c_int()]
    asked = [
        driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device)
        for part, attribute in zip(parts, (_MAJOR, _MINOR), strict=True)
    ]
    if any(asked):
        return None
    major, minor = (part.value for part in parts)
    for name in wheels:
        version = _from_pypi(name)
        if version is not None and not _has_code(name, version, major, minor):
            advice = (
                "it takes a build of one's own, by docs/platforms.md"
                if 10 * major + minor >= _LEAST
                else "CUDA 13 knows none so old, leave it to the processor"
            )
            return Obstacle(
                f"{name} {version} of PyPI has no code for this GPU (sm_{major}{minor}): {advice}", lasting=True
            )
    return None


def _has_code(name: str, version: str, major: int, minor: int) -> bool:
    code = _CODE.get((name, version, platform.machine()))
    if code is None:
        return 10 * major + minor >= _LEAST
    return any(each // 10 == major and each % 10 <= minor for each in code)


def _from_pypi(name: str) -> str | None:
    """Return a wheel's version; None where it is not here, or somebody's own build, which has other code.

    PyPI takes no wheel for Linux without a manylinux tag, and no build has one unless it is repaired for PyPI.
    """
    try:
        here = distribution(name)
    except PackageNotFoundError:
        return None
    return here.version if "manylinux" in (here.read_text("WHEEL") or "") else None
