"""The execution providers that are really there: each is asked in a process of its own, which may die of it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.doctor.finding import Finding
from agent.hardware.choice import PROVIDERS, Provider
from agent.hardware.machine import Machine

# onnxruntime is imported in 0.2 s here and in some seconds from a Raspberry Pi's card; a library that hangs never ends.
_PATIENCE_S = 7.0
_PROBE = (sys.executable, "-m", "agent.engines.worker.probe")


@dataclass(frozen=True, slots=True)
class Probed:
    """What became of a probe: what it told, or why it told nothing."""

    told: Mapping[str, Any] | None
    why: str | None = None


def probe(*arguments: str, command: tuple[str, ...] = _PROBE, patience_s: float = _PATIENCE_S) -> Probed:
    """Run a probe, and read what it tells.

    Args:
        arguments: a provider's name and its plugin's; none for what the runtime has without.
        command: what to run.
        patience_s: after so long it counts as hung, and is killed.

    """
    try:
        ended = subprocess.run([*command, *arguments], capture_output=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired:
        return Probed(None, f"hung, and was killed after {patience_s:g} s")
    except OSError as error:
        return Probed(None, f"could not be started ({error.strerror})")
    if ended.returncode < 0:
        return Probed(None, f"crashed with {signal.Signals(-ended.returncode).name}")
    try:
        return Probed(json.loads(ended.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        last = ended.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return Probed(None, f"ended with exit code {ended.returncode}: {(last or ['it said nothing'])[0][:200]}")


def wanted(machine: Machine, named: str = "auto") -> tuple[Provider, ...]:
    """Return the providers that are worth asking for: those of which a package is installed, and the one configured."""
    return tuple(
        each for each in PROVIDERS if each.name == named or any(name in machine.packages for name in each.packages)
    )


def runtime(found: Probed) -> Iterator[Finding]:
    """Judge the probe of the runtime alone."""
    if found.told is None:
        yield Finding(
            "runtime", "wrong", f"onnxruntime {found.why}: install it anew, or for another processor", stops=True
        )
    else:
        versions = f"onnxruntime-genai {found.told['engine']} with onnxruntime {found.told['runtime']}"
        yield Finding("runtime", "well", f"{versions} can be loaded; the provider cpu is here")


def provider(each: Provider, found: Probed) -> Iterator[Finding]:
    """Judge the probe of one provider."""
    if found.told is None:
        yield Finding(each.name, "wrong", f"its library {found.why}; it is not used: see docs/platforms.md")
        return
    devices = [device for device in found.told["devices"] if device["provider"] != "CPUExecutionProvider"]
    if found.told["failed"]:
        yield Finding(each.name, "wrong", f"cannot be used: {found.told['failed']} (see docs/platforms.md)")
    elif devices:
        named = ", ".join(f"{device['type']} by {device['vendor'] or 'an unknown maker'}" for device in devices)
        yield Finding(each.name, "well", f"really here: {named}")
    elif each.name == "cuda":
        yield Finding(each.name, "well", "really here, by NVIDIA's driver")
    else:
        yield Finding(
            each.name, "wrong", "is installed and finds no device: check its driver, or leave the package out"
        )
