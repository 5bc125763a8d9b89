"""The execution provider that a model runs on, and whether it is really there.

The library takes the name of any provider, and some crash or hang natively when they are asked for a device that the
machine has not (Foundry-Local's issues 719 and 136). So each is looked for first. Looking may crash as well: the worker
is the process for that, and its parent comes back with the next provider.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnxruntime_genai as og  # type: ignore[import-untyped]

from agent.engines.worker import nvidia
from agent.engines.worker.facts import Facts, ModelError

# Driven by NVIDIA's library, which onnxruntime-genai-cuda alone has.
_NVIDIA = ("cuda", "NvTensorRtRtx")
# Their models are compiled for a fixed number of tokens: a prompt is one call, and nothing in a cache is taken back.
# All others that can be configured go on from where a cache ends (src/generators.cpp, SupportsContinuousDecoding).
_WHOLE = ("QNN", "VitisAI")


class ProviderError(ModelError):
    """The provider cannot be used; `lasting` if no waiting will change that."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider.

    Attributes:
        name: ``cpu``, or as the library's ``Config.append_provider`` takes it.
        library: import name of the package that has it as a plugin; None where it is built in.
        options: its own, over those that the model's folder names for it.
        own_memory: whether it keeps KV caches in a memory of its own, a graphics card's, and not in the box's.

    """

    name: str = "cpu"
    library: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    own_memory: bool = False

    @property
    def whole_prompts(self) -> bool:
        """Whether a prompt must be one call, the library choose each token, and no cache serve a second job."""
        return self.name in _WHOLE

    def token_bytes(self, facts: Facts) -> int:
        """Return how much of the box's memory one token of a model takes in a KV cache."""
        if self.own_memory:
            return 0
        # Models for NVIDIA's compute with 16-bit floats.
        return facts.kv_bytes // 2 if self.name in _NVIDIA else facts.kv_bytes

    def prepare(self) -> None:
        """Look whether it is there, and have the library know of its plugin.

        Raises:
            ProviderError: it is not there.

        """
        if self.name in _NVIDIA:
            _find_nvidia(self.name, self.options.get("device_id", "0"))
        if self.library is not None:
            _register(self.library)

    def choose(self, config: og.Config, sections: Mapping[str, object]) -> None:
        """Have a model run on it alone, whatever its folder names.

        Args:
            config: the model's, as the library has read it.
            sections: what its genai_config.json says of the ``model``.

        """
        config.clear_providers()
        for name, section in sections.items():
            # A part with session options of its own runs on what these name; emptied, they leave it to the processor.
            named = _named(section)
            if name != "decoder" and named and self.name.lower() not in named:
                config.overlay(f'{{"model": {{"{name}": {{"session_options": {{}}}}}}}}')
        if self.name != "cpu":
            config.append_provider(self.name)
        for key, value in self.options.items():
            config.set_provider_option(self.name, key, value)


def _find_nvidia(provider: str, device: str) -> None:
    if not og.is_cuda_available():
        raise ProviderError(
            "onnxruntime-genai is installed in place of onnxruntime-genai-cuda: run `sudo scripts/install --extra "
            "cuda`, or make a new virtual environment with that extra",
            lasting=True,
        )
    import onnxruntime  # type: ignore[import-untyped]  # noqa: PLC0415  17 MB, which the processor need not have

    onnxruntime.preload_dlls()  # CUDA's libraries where they came by pip, which no loader would find
    # TensorRT makes its kernels on the device; to choose a token, the library uses its own of CUDA.
    wheels = ("onnxruntime-gpu", "onnxruntime-genai-cuda") if provider == "cuda" else ("onnxruntime-genai-cuda",)
    missing = nvidia.obstacle(int(device) if device.isdecimal() else 0, wheels)
    if missing is not None:
        raise ProviderError(missing.why, lasting=missing.lasting)


def _register(library: str) -> None:
    """Have the library know of a plugin that has a device here."""
    import onnxruntime  # noqa: PLC0415

    package = library.replace("_", "-")
    if importlib.util.find_spec(library) is None:
        raise ProviderError(f"the package {package} is not installed", lasting=True)
    try:
        plugin = importlib.import_module(library)
        name, path = plugin.get_ep_name(), plugin.get_library_path()
        # The two packages have an environment each, and only onnxruntime's can be asked what is in it.
        onnxruntime.register_execution_provider_library(name, path)
        found = name in {device.ep_name for device in onnxruntime.get_ep_devices()}
        onnxruntime.unregister_execution_provider_library(name)
        if found:
            og.register_execution_provider_library(name, path)
    except Exception as error:  # onnxruntime's have no base of their own
        raise ProviderError(f"the library of {package} cannot be loaded: see the box's log", lasting=False) from error
    if not found:
        raise ProviderError(f"{package} finds no device that it could use", lasting=False)


def _named(section: object) -> set[str]:
    """Return the providers, in lower case, that a part of a model names for itself."""
    session = section.get("session_options", {}) if isinstance(section, dict) else {}
    options = session.get("provider_options", []) if isinstance(session, dict) else []
    return {str(name).lower() for each in options if isinstance(each, dict) for name in each}
