"""The machine: what it is, and what it has, read from a few small files in some milliseconds."""

import os
import platform
import struct
from dataclasses import dataclass, field
from pathlib import Path

from agent.hardware import accelerators, processor
from agent.hardware.accelerators import Accelerator
from agent.hardware.packages import Packages, installed
from agent.hardware.processor import Processor
from agent.kernel_files import text, total_bytes

_ROOT = Path("/")
_TREE = "proc/device-tree"  # a link to /sys/firmware/devicetree/base
_DMI = "sys/class/dmi/id"
# What a maker leaves in the fields that it does not fill.
_BLANK = {"", "to be filled by o.e.m.", "default string", "system product name", "not applicable", "none"}


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that runs this, for which wheels are chosen.

    Args:
        architecture: of the kernel, as ``uname`` tells it; a 32-bit Python may run on ``aarch64``.
        bits: of a pointer, 32 or 64.
        glibc: major and minor; None where the C library is another.

    """

    architecture: str
    bits: int
    glibc: tuple[int, int] | None

    @classmethod
    def here(cls) -> "Interpreter":
        """Return this one."""
        return cls(platform.machine(), struct.calcsize("P") * 8, _glibc())


@dataclass(frozen=True, slots=True)
class Board:
    """What the maker says that it is.

    Args:
        name: for people; None where neither a device tree nor DMI tells.
        compatible: what the device tree names, the most particular first.
        l4t: NVIDIA's release of a Jetson's system, as in ``36.4.3``.

    """

    name: str | None = None
    compatible: tuple[str, ...] = ()
    l4t: str | None = None

    @property
    def jetpack(self) -> int | None:
        """JetPack's major number, by that of L4T: 32 is 4, 35 is 5, 36 is 6, 38 and 39 are 7."""
        if self.l4t is None:
            return None
        return {"32": 4, "34": 5, "35": 5, "36": 6, "38": 7, "39": 7}.get(self.l4t.partition(".")[0])


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, by what its files tell.

    Args:
        board: what it is.
        processor: what it computes with.
        interpreter: the Python that wheels must fit.
        memory_bytes: all of it, or what this process's cgroup may have, if that is less.
        accelerators: what else could compute.
        packages: the installed distributions that an execution provider comes with, and their versions.

    """

    board: Board
    processor: Processor
    interpreter: Interpreter
    memory_bytes: int
    accelerators: tuple[Accelerator, ...] = ()
    packages: Packages = field(default_factory=dict)


def read(root: Path = _ROOT, interpreter: Interpreter | None = None, packages: Packages | None = None) -> Machine:
    """Read a machine's files: no process is started, and no library of a provider loaded.

    Args:
        root: where ``proc``, ``sys``, ``dev`` and ``etc`` are.
        interpreter: by default this one.
        packages: by default those that are installed here.

    """
    board = _board(root)
    return Machine(
        board=board,
        processor=processor.read(root),
        interpreter=Interpreter.here() if interpreter is None else interpreter,
        memory_bytes=total_bytes(root),
        accelerators=accelerators.read(root, board.compatible),
        packages=installed() if packages is None else packages,
    )


def _board(root: Path) -> Board:
    compatible = tuple(name for name in text(root / _TREE / "compatible").split("\0") if name)
    name = text(root / _TREE / "model").strip("\0 \n") or _dmi(root)
    return Board(name, compatible, _l4t(root))


def _dmi(root: Path) -> str | None:
    """Return the maker's and the product's names; those of the mainboard where the product has none."""
    for names in (("sys_vendor", "product_name"), ("board_vendor", "board_name")):
        told = [text(root / _DMI / name).strip() for name in names]
        if told[1].lower() not in _BLANK:
            return " ".join(word for word in told if word.lower() not in _BLANK)
    return None


def _l4t(root: Path) -> str | None:
    """Return the release of which ``# R36 (release), REVISION: 4.3, …`` tells."""
    words = text(root / "etc/nv_tegra_release").replace(",", " ").split()
    if len(words) < 2 or not words[1].startswith("R") or "REVISION:" not in words[:-1]:  # noqa: PLR2004  "# R36"
        return None
    return f"{words[1][1:]}.{words[words.index('REVISION:') + 1]}"


def _glibc() -> tuple[int, int] | None:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) if name == "glibc" else None
    except (ValueError, OSError):
        return None
