"""``python -m agent.engines.worker.probe [PROVIDER [LIBRARY]]``: the devices that onnxruntime really has, as JSON.

A process to be thrown away: a provider's library may crash or hang as it looks for a device that is not there.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import onnxruntime as ort  # type: ignore[import-untyped]
import onnxruntime_genai as og  # type: ignore[import-untyped]

from agent.engines.worker.provider import Provider

# CUDA's own library lies beside the runtime, and can be asked for its devices as a plugin's.
_CUDA, _CUDA_LIBRARY = "CUDAExecutionProvider", Path("capi", "libonnxruntime_providers_cuda.so")


def main(arguments: list[str]) -> int:
    """Print what there is; with a provider's name, of that provider. Return the exit code.

    It is the last line: onnxruntime prints before it which of CUDA's libraries it misses.
    """
    failed = None
    try:
        _load(*arguments)
    except Exception as error:  # noqa: BLE001  onnxruntime's have no base of their own, and a plugin's may be any
        failed = (str(error) or repr(error)).splitlines()[0].rpartition("with error: ")[2]
    told = {
        "runtime": str(ort.__version__),
        "engine": str(og.__version__),
        "devices": [_told(device) for device in ort.get_ep_devices()],
        "failed": failed,
    }
    print(json.dumps(told))  # noqa: T201  the doctor reads it
    return 0


def _load(provider: str = "cpu", library: str | None = None) -> None:
    """Have the runtime know of a provider's devices.

    Raises:
        Exception: any at all; its first line says why not.

    """
    Provider(provider, library).prepare()  # as a worker does before it loads a model
    if provider == "cuda":
        # What the driver's count cannot tell: whether CUDA's libraries are here, in the version that this one wants.
        ort.register_execution_provider_library(_CUDA, str(Path(ort.__file__).parent / _CUDA_LIBRARY))
    elif library is not None:
        plugin = importlib.import_module(library)
        ort.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())


def _told(device: Any) -> dict[str, str]:  # noqa: ANN401  the library has no types
    return {
        "provider": str(device.ep_name),
        "type": str(device.device.type).rpartition(".")[2],
        "vendor": str(device.device.vendor),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
