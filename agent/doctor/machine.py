"""What the machine is and has. Pure: everything here was read by `agent.hardware`."""

from collections.abc import Iterator

from agent.doctor.finding import Finding, Mark
from agent.hardware.accelerators import Kind
from agent.hardware.choice import missed
from agent.hardware.machine import Interpreter, Machine
from agent.hardware.packages import misfits

# The wheels of onnxruntime-genai 0.18 for Linux are manylinux_2_28, for 64 bits.
_GLIBC = (2, 28)
# What the int4 and int8 kernels multiply with, by architecture.
_DOT = {"x86_64": ("avx2", "avx_vnni", "avx512_vnni", "amx_int8"), "aarch64": ("asimddp", "i8mm")}

# Accelerators that auto does not take.
_LEFT_ALONE: dict[Kind, str] = {
    "unused": "which no execution provider of onnxruntime-genai drives",
    "gpu": "which auto leaves alone, since nobody has measured it to be faster than the processor",
    "intel-npu": "for models made for it alone: set engine.provider to OpenVINO, and its option device_type to NPU",
}


def board(machine: Machine) -> Iterator[Finding]:
    """Yield what the maker says that it is."""
    here = machine.board
    if here.l4t is not None:
        release = "" if here.jetpack is None else f", which is JetPack {here.jetpack}"
        yield Finding("board", "well", f"{here.name or 'a Jetson'}, with L4T {here.l4t}{release}")
    elif here.name is None:
        yield Finding("board", "told", "neither a device tree nor DMI says what it is, as in most virtual machines")
    else:
        yield Finding("board", "well", here.name)


def processor(machine: Machine) -> Iterator[Finding]:
    """Yield the processor, and what of it makes models slow."""
    here, architecture = machine.processor, machine.interpreter.architecture
    threads = "" if here.threads == here.cores else f" with {here.threads} threads"
    fast = "" if here.fast_cores == here.cores else f", {here.fast_cores} of them fast"
    features = f" ({' '.join(here.features)})" if here.features else ""
    dot_products = {*here.features} & {*_DOT.get(architecture, ())}
    slow = "" if dot_products else "; without dot products it is slow with prompts"
    cores = _counted(here.cores, "core")
    yield Finding(
        "processor",
        "well",
        f"{here.model}, {cores}{threads}{fast}, {architecture}{features}{slow}",
        facts={"cores": here.cores, "fast_cores": here.fast_cores, "threads": here.threads},
    )
    if fast:
        yield Finding(
            "threads",
            "told",
            f"models compute on {_counted(here.fast_cores, 'fast core')}, since each step waits for the slowest: see "
            f"by `edge-slm bench --set engine.threads={here.cores}` whether all are faster, which nobody has measured",
        )


def memory(machine: Machine, available: int | None) -> Iterator[Finding]:
    """Yield how much memory there is, and how much of it is left."""
    left = "" if available is None else f", {_gb(available)} available"
    yield Finding("memory", "well", f"{_gb(machine.memory_bytes)}{left}", facts={"bytes": machine.memory_bytes})


def accelerators(machine: Machine) -> Iterator[Finding]:
    """Yield what could compute beside the processor, and what is missing for it."""
    if not machine.accelerators:
        yield Finding("accelerator", "told", "none is seen: the processor computes")
    for each in machine.accelerators:
        node = f" ({each.node})" if each.node else ""
        but = _LEFT_ALONE.get(each.kind)
        mark: Mark = "well" if each.allowed and not but else "told"
        text = f"{each.name}{node}{f', {but}' if but else ''}"
        yield Finding("accelerator", mark, text, facts={"kind": each.kind, "node": each.node})
    for miss in missed(machine):
        yield Finding(miss.provider, "wrong" if miss.installed else "told", miss.why)


def packages(machine: Machine) -> Iterator[Finding]:
    """Yield the installed distributions, and what is wrong among them."""
    unfit = _unfit(machine.interpreter)
    if unfit and not machine.packages:
        yield Finding("packages", "wrong", f"onnxruntime-genai is not installed, and cannot be: {unfit}", stops=True)
        return
    wrong = misfits(machine.packages)
    for sentence in wrong:
        yield Finding("packages", "wrong", sentence, stops=True)
    if not wrong:
        named = ", ".join(f"{name} {package.version}" for name, package in machine.packages.items())
        yield Finding("packages", "well", named)


def _unfit(python: Interpreter) -> str | None:
    """Say why no wheel of onnxruntime-genai is for this Python; None if there is one."""
    if python.architecture not in _DOT or python.bits != 64:  # noqa: PLR2004  bits of a pointer
        return (
            f"this Python has {python.bits} bits on {python.architecture}, and it needs 64 bits on x86_64 or aarch64: "
            "install a 64-bit system, as Raspberry Pi OS (64-bit) is"
        )
    if python.glibc is None:
        return "this system has another C library than glibc: install another system, such as Debian 12"
    if python.glibc < _GLIBC:
        return f"it needs glibc 2.28, and this system has {python.glibc[0]}.{python.glibc[1]}: install a newer system"
    return None


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
