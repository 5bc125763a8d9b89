"""The processor: its name, its real cores, and what of its instructions matters here."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.kernel_files import number, text

_CPUS = "sys/devices/system/cpu"
# What onnxruntime's matrix kernels (MLAS) ask for: without these, int4 and int8 models run the slow way.
_FEATURES = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve")
# A 64-bit ARM kernel tells no name. Implementer and part: arch/arm64/include/asm/cputype.h of Linux 6.12.
_ARM = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD83): "Neoverse-V3AE",
    (0x41, 0xD85): "Cortex-X925",
    (0x41, 0xD87): "Cortex-A725",
    (0x4E, 0x004): "Carmel",
    (0x51, 0x001): "Oryon",
}
# Cores of one kind may have different clocks: a QCS6490 has one Cortex-A78 of 2.7 GHz beside three of 2.4, and four
# Cortex-A55 of a third of its capacity. Schedulers draw the line at gaps of 1.3 to 1.5 (sched-ext/scx#2134, #2137).
_AS_FAST = 0.75


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor, of which only what this process may run on counts.

    Args:
        model: its name; on ARM the names of its kinds of cores, as in ``Cortex-A78 + Cortex-A55``.
        cores: real cores, a hyper-threaded one once.
        fast_cores: those of at least three quarters of the best one's capacity, where there are several kinds; or all.
        threads: what the kernel calls a CPU.
        features: the instructions that matter here, by the kernel's names.

    """

    model: str
    cores: int
    fast_cores: int
    threads: int
    features: tuple[str, ...]


def read(root: Path) -> Processor:
    """Read what ``/proc/cpuinfo`` and ``/sys/devices/system/cpu`` tell.

    Sources: Documentation/admin-guide/cputopology.rst; of ARM alone ``cpu_capacity``, Documentation/ABI/testing/
    sysfs-devices-system-cpu; the lists of an Intel hybrid's ``cpu_core`` and ``cpu_atom`` performance units.
    """
    blocks = [_block(each) for each in text(root / "proc/cpuinfo").split("\n\n")]
    listed = [int(block["processor"]) for block in blocks if block.get("processor", "").isdigit()]
    allowed = _allowed(root)
    cpus = [cpu for cpu in listed if cpu in allowed] or listed or [0]
    fast = _fastest(root, cpus)
    return Processor(
        model=_model(blocks),
        cores=len({_core(root, cpu) for cpu in cpus}),
        fast_cores=len({_core(root, cpu) for cpu in fast}),
        threads=len(cpus),
        features=_features(blocks),
    )


def numbers(ranges: str) -> set[int]:
    """Read the kernel's way of writing a set of numbers, such as ``0-3,8``."""
    found: set[int] = set()
    for part in ranges.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found.update(range(int(first), int(last if last.isdigit() else first) + 1))
    return found


def _block(lines: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _allowed(root: Path) -> set[int]:
    """Return the CPUs that this process may run on, by its affinity and its cpuset."""
    status = _block(text(root / "proc/self/status"))
    return numbers(status.get("Cpus_allowed_list", ""))


def _core(root: Path, cpu: int) -> str:
    """Name the core that a CPU is a thread of, by the list of its threads."""
    return text(root / f"{_CPUS}/cpu{cpu}/topology/thread_siblings_list").strip() or str(cpu)


def _fastest(root: Path, cpus: list[int]) -> list[int]:
    capacities = {cpu: number(root / f"{_CPUS}/cpu{cpu}/cpu_capacity") or 0 for cpu in cpus}
    performance = numbers(text(root / "sys/devices/cpu_core/cpus"))
    if performance & {*cpus}:
        return [cpu for cpu in cpus if cpu in performance]
    return [cpu for cpu in cpus if capacities[cpu] >= _AS_FAST * max(capacities.values())]


def _model(blocks: Iterable[dict[str, str]]) -> str:
    parts = dict.fromkeys(_arm(block) for block in blocks if "CPU part" in block)
    if parts:
        return " + ".join(parts)
    return next((block["model name"] for block in blocks if block.get("model name")), "unknown")


def _arm(block: dict[str, str]) -> str:
    implementer, part = block.get("CPU implementer", "0"), block["CPU part"]
    try:
        known = _ARM.get((int(implementer, 16), int(part, 16)))
    except ValueError:
        known = None
    return known or f"ARM {implementer}/{part}"


def _features(blocks: Iterable[dict[str, str]]) -> tuple[str, ...]:
    """Return what every core has; those of an ARM board may differ."""
    told = [{*(block.get("flags") or block.get("Features", "")).split()} for block in blocks if "processor" in block]
    told = [each for each in told if each]
    return tuple(name for name in _FEATURES if told and all(name in each for each in told))
