"""Machines of others, as files: each of ``machines/*.yaml`` says where its lines are from, and what is uncertain."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.doctor.providers import Probed
from agent.hardware.machine import Interpreter, Machine, read
from agent.hardware.packages import Package

NAMES = sorted(path.stem for path in (Path(__file__).parent / "machines").glob("*.yaml"))


@dataclass(frozen=True, slots=True)
class Recorded:
    """A machine laid out under ``root``."""

    root: Path
    interpreter: Interpreter
    packages: Mapping[str, Package]
    probes: Mapping[str, Probed]
    chooses: list[str]
    says: list[str]

    def read(self) -> Machine:
        return read(self.root, self.interpreter, self.packages)


def lay_out(name: str, root: Path) -> Recorded:
    """Write a machine's files under ``root``."""
    told = yaml.safe_load((Path(__file__).parent / "machines" / f"{name}.yaml").read_text())
    blocks = []
    for cpu, (block, siblings, capacity) in enumerate(_cpus(told["processors"])):
        blocks.append(f"processor       : {cpu}\n{block}")
        _write(root, f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{siblings}\n")
        if capacity is not None:
            _write(root, f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity", f"{capacity}\n")
    _write(root, "proc/cpuinfo", "\n".join(blocks))
    _write(root, "proc/self/status", f"Name:\tpython3\nCpus_allowed_list:\t0-{len(blocks) - 1}\n")
    for path, text in told["files"].items():
        _write(root, path, text)
    for path in told["nodes"]:
        _write(root, path, "")
    python = told["interpreter"]
    return Recorded(
        root,
        Interpreter(python["architecture"], python["bits"], tuple(python["glibc"])),
        {each: _package(here) for each, here in told["packages"].items()},
        {each: _probed(here, told["packages"]) for each, here in told["probes"].items()},
        told["chooses"],
        told["says"],
    )


def _cpus(kinds: list[dict[str, Any]]) -> Iterator[tuple[str, str, int | None]]:
    """Yield each CPU's lines of cpuinfo, the threads of its core, and its capacity."""
    number = 0
    for kind in kinds:
        threads = kind.get("threads", 1)
        for at in range(kind["count"]):
            first = number + at - at % threads
            yield kind["cpuinfo"], ",".join(str(first + each) for each in range(threads)), kind.get("capacity")
        number += kind["count"]


def _package(told: str | dict[str, Any]) -> Package:
    return Package(told) if isinstance(told, str) else Package(told["version"], tuple(told["requires"]))


def _probed(told: dict[str, Any], packages: dict[str, Any]) -> Probed:
    if "ended" in told:
        return Probed(None, told["ended"])
    devices = [dict(zip(("provider", "type", "vendor"), device.split(), strict=True)) for device in told["devices"]]
    runtime = next(_package(packages[name]).version for name in ("onnxruntime", "onnxruntime-gpu") if name in packages)
    return Probed({"engine": "0.18.0", "runtime": runtime, "devices": devices, "failed": told.get("failed")})


def _write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(text.encode())
