"""Which execution provider a machine should use, and why. Pure: what is really there, the worker finds out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.hardware.accelerators import Accelerator, Kind
from agent.hardware.machine import Machine
from agent.hardware.packages import Packages, remedy


@dataclass(frozen=True, slots=True)
class Provider:
    """What is known of an execution provider.

    Args:
        name: as onnxruntime-genai's ``Config.append_provider`` takes it.
        packages: distributions of which one must be installed, the better first.
        kinds: accelerators that it drives, the better first.
        extra: of this project, with which its packages are installed; None where no registry has them.
        library: the import name of a plugin; None where the provider is built into onnxruntime-genai.
        own_model: it runs only models that were made for it.
        options: what `auto` sets, for the first kind that is here.

    """

    name: str
    packages: tuple[str, ...]
    kinds: tuple[Kind, ...]
    extra: str | None = None
    library: str | None = None
    own_model: bool = True
    options: Mapping[str, str] = field(default_factory=dict)


# The best first. On PyPI's wheels of November 2026 and the sources of onnxruntime-genai 0.18:
# - CUDA has no GroupQueryAttention for 32-bit floats (onnxruntime's docs/OperatorKernels.md), with which models for the
#   CPU compute: it runs those that were made with 16 bits.
# - QNN, VitisAI and RyzenAI run compiled or quantised graphs of their own alone, and TensorRT-RTX such as the model
#   builder makes for it.
# - OpenVINO takes the CPU unless it is told a device (src/openvino/session_options.cpp), which gains nothing worth a
#   second runtime; its NPU wants models of its own, so that auto takes its GPU.
# - WebGPU takes any GPU. Those inside ARM chips read the same memory as the cores, and nobody has measured that they
#   are faster: auto leaves them alone.
PROVIDERS = (
    Provider("cuda", ("onnxruntime-genai-cuda",), ("nvidia-gpu", "jetson-gpu"), "cuda"),
    Provider(
        "NvTensorRtRtx",
        ("onnxruntime-ep-nv-tensorrt-rtx-cu13", "onnxruntime-ep-nv-tensorrt-rtx-cu12"),
        ("nvidia-gpu",),
        "tensorrt-rtx",
        "onnxruntime_ep_nv_tensorrt_rtx",
    ),
    Provider("QNN", ("onnxruntime-qnn",), ("qualcomm-npu",), "qnn", "onnxruntime_qnn"),
    Provider("RyzenAI", ("onnxruntime-genai-directml-ryzenai",), ("amd-npu",)),
    Provider("VitisAI", ("onnxruntime-vitisai",), ("amd-npu",)),
    Provider(
        "OpenVINO",
        ("onnxruntime-ep-openvino",),
        ("intel-gpu",),
        "openvino",
        "onnxruntime_ep_openvino",
        own_model=False,
        options={"device_type": "GPU"},
    ),
    Provider(
        "WebGPU",
        ("onnxruntime-ep-webgpu",),
        ("nvidia-gpu", "amd-gpu", "intel-gpu"),
        "webgpu",
        "onnxruntime_ep_webgpu",
        own_model=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider that may be used.

    Args:
        provider: ``cpu``, or the name that onnxruntime-genai's ``Config.append_provider`` takes.
        why: a sentence that says why it is, or would be, used.
        library: import name of the plugin whose ``get_library_path()`` is to be registered; None where it is built in.
        options: the provider's own.
        own_model: it runs only models that were made for it.

    """

    provider: str
    why: str
    library: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    own_model: bool = False


@dataclass(frozen=True, slots=True)
class Missed:
    """An accelerator's provider that cannot be used as things are.

    Args:
        provider: its name.
        why: a sentence that says what is missing, and what to do.
        installed: whether a package of it is, which somebody must have wanted.

    """

    provider: str
    why: str
    installed: bool


def choose(wanted: str, options: Mapping[str, str], machine: Machine) -> tuple[Choice, ...]:
    """Return the providers to try, the best first; the last is always ``cpu``.

    Args:
        wanted: ``auto``, ``cpu``, or a provider's name: it is tried first whatever the files tell, which may lack it.
        options: for the provider that is named.
        machine: what is here.

    """
    if wanted == "cpu":
        return (Choice("cpu", f"engine.provider names it; {_cores(machine)}"),)
    if wanted != "auto":
        named = next(provider for provider in PROVIDERS if provider.name == wanted)
        return (
            Choice(wanted, "engine.provider names it", named.library, options, named.own_model),
            Choice("cpu", _cores(machine)),
        )
    ready = [
        Choice(
            provider.name,
            f"{found.name}, and {package} is installed",
            provider.library,
            provider.options,
            provider.own_model,
        )
        for provider in PROVIDERS
        if (found := _usable(provider, machine)) and (package := _package(provider, machine.packages))
    ]
    return (*ready, Choice("cpu", _cores(machine)))


def missed(machine: Machine) -> tuple[Missed, ...]:
    """Return what could be used, were it not for a package, a driver or a permission; of each device the best."""
    drivers = {
        each: [provider for provider in PROVIDERS if each.kind in provider.kinds] for each in machine.accelerators
    }
    return tuple(
        Missed(providers[0].name, why, installed=_installed(providers, machine.packages))
        for device, providers in drivers.items()
        if providers and (why := _obstacle(providers, device, machine.packages))
    )


def extra(machine: Machine) -> str:
    """Return which of this project's extras to install where nothing is installed yet.

    Only NVIDIA's cards get another than ``cpu``: with every other provider, auto would from then on use what nobody has
    tried on such a box (docs/platforms.md says what was tried), and a Jetson's GPU is not in the wheels.
    """
    return "cuda" if any(each.kind == "nvidia-gpu" and each.allowed for each in machine.accelerators) else "cpu"


def _usable(provider: Provider, machine: Machine) -> Accelerator | None:
    here = [each for kind in provider.kinds for each in machine.accelerators if each.kind == kind]
    return next((each for each in here if each.allowed), None)


def _package(provider: Provider, packages: Packages) -> str | None:
    return next((name for name in provider.packages if name in packages), None)


def _obstacle(providers: Sequence[Provider], device: Accelerator, packages: Packages) -> str | None:
    if device.node is None:
        return f"{device.name} has no device file: install its driver"
    if not device.allowed:
        return f"this user may not open {device.node} ({device.name}): {_entry(device.group)}"
    if _installed(providers, packages):
        return None
    if device.kind == "jetson-gpu":
        return f"{device.name}: no wheel on PyPI has code for it; see docs/platforms.md for what to build"
    if providers[0].extra is None:
        return f"{device.name} needs its maker's own build of onnxruntime-genai: see docs/platforms.md"
    return f"{device.name} could be used: {remedy(providers[0].extra)}"


def _installed(providers: Sequence[Provider], packages: Packages) -> bool:
    return any(_package(provider, packages) for provider in providers)


def _entry(group: str | None) -> str:
    service = "a service takes the drop-in gpu.conf (docs/systemd.md)"
    if group is None or group == "root":
        return f"give the file a group by a udev rule, and the user that group; {service}"
    return f"`sudo usermod -aG {group} USER`, and log in anew; {service}"


def _cores(machine: Machine) -> str:
    cores = machine.processor.cores
    return f"the processor, {machine.processor.model}, has {cores} core{'s' if cores != 1 else ''}"
