"""What could compute beside the processor, as /sys, /proc and /dev show it. Whether it works, its provider tells."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.kernel_files import text

Kind = Literal[
    "nvidia-gpu", "jetson-gpu", "qualcomm-npu", "amd-npu", "intel-npu", "intel-gpu", "amd-gpu", "gpu", "unused"
]
_NVIDIA = "0x10de"
_DISPLAY = "0x03"  # the class of a PCI device that is a display controller
# Drivers of /sys/class/accel: Documentation/accel/ of Linux 6.14.
_NPUS: dict[str, tuple[Kind, str]] = {"amdxdna": ("amd-npu", "AMD XDNA NPU"), "intel_vpu": ("intel-npu", "Intel NPU")}
_GPUS: dict[str, tuple[Kind, str]] = {
    "amdgpu": ("amd-gpu", "AMD GPU"),
    "i915": ("intel-gpu", "Intel GPU"),
    "xe": ("intel-gpu", "Intel GPU"),
    "v3d": ("gpu", "VideoCore GPU of a Raspberry Pi"),
    "panfrost": ("gpu", "Mali GPU"),
    "panthor": ("gpu", "Mali GPU"),
    "msm": ("gpu", "Adreno GPU"),
}
# The nodes of the GPU that is a part of a Tegra: since JetPack 5 (L4T 35), before it, and that of its memory.
_TEGRA = ("dev/nvgpu/igpu0/ctrl", "dev/nvhost-ctrl-gpu", "dev/nvmap")
# Accelerators that no execution provider of onnxruntime-genai drives. Told, so that nobody waits for them.
_UNUSED = {
    "dev/hailo0": "Hailo NPU",
    "dev/apex_0": "Coral Edge TPU",
    "dev/rknpu": "Rockchip NPU",
}


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Something that could compute.

    Args:
        kind: which providers it is for; see `agent.hardware.choice`.
        name: for people.
        node: the device file under ``/dev``; None where its driver has made none.
        allowed: whether this user may open that file.
        group: which users may, if the file's mode lets them; None where nobody knows.

    """

    kind: Kind
    name: str
    node: str | None
    allowed: bool
    group: str | None = None


def read(root: Path, compatible: tuple[str, ...]) -> tuple[Accelerator, ...]:
    """List what there is.

    Args:
        root: where ``proc``, ``sys`` and ``dev`` are.
        compatible: what the device tree says that the board is.

    """
    tegra = any(name.startswith("nvidia,tegra") for name in compatible)
    return (*_nvidia(root, tegra=tegra), *_qualcomm(root), *_npus(root), *_gpus(root, tegra=tegra), *_unused(root))


def _nvidia(root: Path, *, tegra: bool) -> Iterator[Accelerator]:
    """Yield NVIDIA's GPUs: with their driver, as a part of a Tegra, and without any driver."""
    cards = _found(root, "proc/driver/nvidia/gpus", "*/information")
    for card in cards:
        told = {name: value.strip() for name, _, value in (line.partition(":") for line in text(card).splitlines())}
        kind: Kind = "jetson-gpu" if tegra else "nvidia-gpu"
        # Their order by slot says nothing of the file: in a container the only card may be /dev/nvidia3.
        yield _device(root, kind, told.get("Model", "NVIDIA GPU"), f"dev/nvidia{told.get('Device Minor', '0')}")
    if cards:
        return
    if tegra:
        node = next((node for node in _TEGRA if (root / node).exists()), None)
        yield _device(root, "jetson-gpu", "GPU of a Jetson", node)
    elif any(_is_nvidia(device) for device in _found(root, "sys/bus/pci/devices", "*")):
        yield Accelerator("nvidia-gpu", "NVIDIA GPU without NVIDIA's driver", None, allowed=False)


def _is_nvidia(device: Path) -> bool:
    return text(device / "vendor").strip() == _NVIDIA and text(device / "class").startswith(_DISPLAY)


def _qualcomm(root: Path) -> Iterator[Accelerator]:
    """Yield the compute DSP, which is the NPU; drivers/misc/fastrpc.c makes its file."""
    for node in ("dev/fastrpc-cdsp", "dev/fastrpc-cdsp-secure"):
        if (root / node).exists():
            yield _device(root, "qualcomm-npu", "Qualcomm Hexagon NPU", node)
            return


def _npus(root: Path) -> Iterator[Accelerator]:
    for device in _found(root, "sys/class/accel", "accel*"):
        driver = _driver(device)
        kind, name = _NPUS.get(driver, ("unused", f"NPU of the driver {driver or 'unknown'}"))
        yield _device(root, kind, name, f"dev/accel/{device.name}")


def _gpus(root: Path, *, tegra: bool) -> Iterator[Accelerator]:
    for device in _found(root, "sys/class/drm", "renderD*"):
        driver = _driver(device)
        if driver == "RKNPU":
            yield _device(root, "unused", "Rockchip NPU", f"dev/dri/{device.name}")
        # NVIDIA's were told as CUDA's devices. A Tegra's own, its display among them, are on no PCI bus.
        elif driver != "nvidia" and (_on_pci(device) or not tegra):
            kind, name = _GPUS.get(driver, ("gpu", f"GPU of the driver {driver or 'unknown'}"))
            yield _device(root, kind, name, f"dev/dri/{device.name}")


def _unused(root: Path) -> Iterator[Accelerator]:
    for node, name in _UNUSED.items():
        if (root / node).exists():
            yield _device(root, "unused", name, node)


def _driver(device: Path) -> str:
    """Return the name of a device's driver; ``uevent`` tells it where the link may not be followed."""
    lines = text(device / "device/uevent").splitlines()
    return next((line.removeprefix("DRIVER=") for line in lines if line.startswith("DRIVER=")), "")


def _on_pci(device: Path) -> bool:
    return "PCI_ID=" in text(device / "device/uevent")


def _device(root: Path, kind: Kind, name: str, node: str | None) -> Accelerator:
    if node is None or not (root / node).exists():
        return Accelerator(kind, name, None, allowed=False)
    return Accelerator(kind, name, f"/{node}", os.access(root / node, os.R_OK | os.W_OK), _group(root / node))


def _group(node: Path) -> str | None:
    try:
        return node.group()
    except (OSError, KeyError):  # of a number without a name, as in a container
        return None


def _found(root: Path, folder: str, pattern: str) -> list[Path]:
    """List files of the kernel's; none if a folder goes while it is looked through, as a driver is unloaded."""
    try:
        return sorted((root / folder).glob(pattern))
    except OSError:
        return []
