"""The execution providers that are really there: each is asked in a process of its own, which may die of it."""

import json
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agent.doctor.finding import Finding
from agent.hardware.choice import PROVIDERS, Provider, choose
from agent.hardware.machine import Machine
from agent.hardware.packages import Packages, remedy
from agent.settings import Engine

# onnxruntime is imported in 0.2 s here; from a slow card nobody has measured it. A library that hangs never ends.
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
        return Probed(None, f"took longer than {patience_s:g} s: run the doctor again")
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
        why = f"onnxruntime {found.why}; if it stays so, install it anew, as docs/platforms.md says"
        yield Finding("runtime", "wrong", why, stops=True)
    else:
        versions = f"onnxruntime-genai {found.told['engine']} with onnxruntime {found.told['runtime']}"
        yield Finding("runtime", "well", f"{versions} can be loaded; the provider cpu is here")


def provider(each: Provider, found: Probed, packages: Packages) -> Iterator[Finding]:
    """Judge the probe of one provider."""
    if not any(name in packages for name in each.packages):
        how = f": {remedy(each.extra)}" if each.extra else ", and comes from its maker alone: see docs/platforms.md"
        yield Finding(each.name, "wrong", f"is not installed{how}")
    elif each.library is None and each.name != "cuda":
        yield Finding(each.name, "told", "is built into its maker's onnxruntime-genai: only a model tells if it works")
    elif found.told is None:
        yield Finding(each.name, "wrong", f"its library {found.why}; it is not used: see docs/platforms.md")
    elif found.told["failed"]:
        told = str(found.told["failed"])
        hint = "" if "docs/platforms.md" in told else " (see docs/platforms.md)"
        yield Finding(each.name, "wrong", f"cannot be used: {told}{hint}")
    elif devices := [device for device in found.told["devices"] if device["provider"] != "CPUExecutionProvider"]:
        named = ", ".join(f"{device['type']} by {device['vendor'] or 'an unknown maker'}" for device in devices)
        yield Finding(each.name, "well", f"really here: {named}")
    elif each.name == "cuda":
        yield Finding(each.name, "well", "really here, by NVIDIA's driver")
    else:
        yield Finding(
            each.name, "wrong", "is installed and finds no device: check its driver, or leave the package out"
        )


def absent(runtime: Probed | None, probed: Iterable[tuple[Provider, Probed]], packages: Packages) -> set[str]:
    """Return the providers that are not really here; the processor is one of them where nothing can be loaded.

    Args:
        runtime: the probe of the runtime alone; None where none is installed.
        probed: the probes of others.
        packages: what is installed.

    """
    judged = {each.name: provider(each, found, packages) for each, found in probed}
    gone = {name for name, findings in judged.items() if any(finding.mark == "wrong" for finding in findings)}
    return gone if runtime is not None and runtime.told is not None else {*gone, "cpu"}


def used(engine: Engine, machine: Machine, absent: Collection[str]) -> Iterator[Finding]:
    """Yield which provider is used, and why; a model that was not made for it is left to the next one.

    Args:
        engine: what is configured.
        machine: what is here.
        absent: providers of which is known that they are not really here.

    """
    choices = choose(engine.provider, engine.provider_options, machine)
    there = [choice for choice in choices if choice.provider not in absent]
    if not there:
        yield Finding("provider", "wrong", "none can be used: mend what is said above", facts={"provider": None})
        return
    first, *others = there
    gone = [f"{choice.provider} cannot be used" for choice in choices if choice.provider in absent]
    more = [*gone, *(f"if it fails, {choice.provider}" for choice in others)]
    told = "; ".join([f"{first.provider}: {first.why}", *more])
    yield Finding("provider", "well", told, facts={"provider": first.provider})
