"""The installed distributions that execution providers come with, and whether they fit each other."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from itertools import combinations
from typing import TypeAlias

# Distributions by the package that they are imported as. Two of one row overwrite each other's files, whichever pip
# wrote last, and uninstalling one of them leaves holes in the other.
_SAME: dict[str, tuple[str, ...]] = {
    "onnxruntime_genai": ("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai-directml-ryzenai"),
    "onnxruntime": (
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-openvino",
        "onnxruntime-vitisai",
        "onnxruntime-webgpu",
        "onnxruntime-migraphx",
        "onnxruntime-rocm",
    ),
    "onnxruntime_ep_nv_tensorrt_rtx": ("onnxruntime-ep-nv-tensorrt-rtx-cu13", "onnxruntime-ep-nv-tensorrt-rtx-cu12"),
    "onnxruntime_ep_openvino": ("onnxruntime-ep-openvino",),
    "onnxruntime_ep_webgpu": ("onnxruntime-ep-webgpu",),
    "onnxruntime_qnn": ("onnxruntime-qnn",),
}
ENGINES, RUNTIMES = _SAME["onnxruntime_genai"], _SAME["onnxruntime"]
# With which of this project's extras a distribution comes; the others come with any of them.
_EXTRAS = {
    "onnxruntime-ep-nv-tensorrt-rtx-cu13": "tensorrt-rtx",
    "onnxruntime-genai-cuda": "cuda",
    "onnxruntime-gpu": "cuda",
    "onnxruntime-qnn": "qnn",
    "onnxruntime-ep-openvino": "openvino",
    "onnxruntime-ep-webgpu": "webgpu",
}
# Where a requirement is no name with a lower bound, or is an extra's, it says nothing here.
_AT_LEAST = re.compile(r"([A-Za-z0-9._-]+) *>= *([0-9.]+)$")


@dataclass(frozen=True, slots=True)
class Package:
    """An installed distribution: its version, and its ``Requires-Dist``."""

    version: str
    requires: tuple[str, ...] = ()


Packages: TypeAlias = Mapping[str, Package]


def installed() -> Packages:
    """Return those that are installed here, by their names."""
    found = {}
    for name in (name for names in _SAME.values() for name in names):
        try:
            told = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = Package(told.version, tuple(told.requires or ()))
    return found


def remedy(extra: str) -> str:
    """Say how to come to an extra; what is there of another is left behind with its environment."""
    return (
        f"`sudo scripts/install --extra {extra}`; or in a new virtual environment, from a wheel of this repository, "
        f"`pip install 'WHEEL[{extra}]'`"
    )


def misfits(packages: Packages) -> tuple[str, ...]:
    """Say what is wrong with them, a sentence each that says what to type; nothing if they fit."""
    if not any(name in packages for name in ENGINES):
        return (f"onnxruntime-genai, which runs the models, is not installed: {remedy('cpu')}",)
    extra = next((extra for name, extra in _EXTRAS.items() if name in packages), "cpu")
    return tuple(f"{sentence}: {remedy(extra)}" for sentence in (*_overlaps(packages), *_too_old(packages)))


def _overlaps(packages: Packages) -> Iterator[str]:
    for names in _SAME.values():
        for first, second in combinations([name for name in names if name in packages], 2):
            yield f"{first} and {second} overwrite each other's files"


def _too_old(packages: Packages) -> Iterator[str]:
    # Any build of the runtime is what another one wants; that there are two is told by itself.
    here = {name: package.version for name, package in packages.items() if name in RUNTIMES}
    for name, package in packages.items():
        for needed, least in filter(None, map(_at_least, package.requires)):
            if needed not in RUNTIMES or any(_version(version) >= _version(least) for version in here.values()):
                continue
            has = "".join(f"and {each} {version} is installed" for each, version in [*here.items()][:1])
            yield f"{name} {package.version} needs {needed} {least} or newer, {has or 'which is not installed'}"


def _at_least(requirement: str) -> tuple[str, str] | None:
    found = _AT_LEAST.match(requirement)
    return None if found is None else (found[1], found[2])


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with; what follows them makes no difference here."""
    numbers = re.match(r"[0-9.]*", text)[0].strip(".").split(".")  # type: ignore[index]
    return tuple(int(part) for part in (*numbers, "0", "0", "0")[:4] if part)
