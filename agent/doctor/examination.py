"""All checks, at the same time and each with its own end: one that hangs or breaks stops no other."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from agent.doctor import box, machine, models, providers
from agent.doctor.broker import broker
from agent.doctor.cloud import cloud
from agent.doctor.finding import Finding
from agent.doctor.providers import Probed
from agent.hardware.choice import Provider
from agent.hardware.machine import Machine
from agent.hardware.packages import ENGINES
from agent.kernel_files import available_bytes
from agent.settings import Settings
from agent.threads import begun

if TYPE_CHECKING:
    from concurrent.futures import Future

# With a second or two to begin, everything is told in ten. The longest of the checks' own limits is 7 s: what goes
# beyond is a disk that does not come back.
_PATIENCE_S = 7.5
# Without their word, nobody knows whether the box can serve.
_NEEDED = ("packages", "runtime", "models", "disk", "broker")

Check: TypeAlias = Callable[[], Iterable[Finding]]


def checks(settings: Settings, here: Machine) -> dict[str, Check]:
    """Start asking the providers; return what is looked at, in the order in which it is told."""
    installed = any(name in here.packages for name in ENGINES)
    runtime = begun(providers.probe) if installed else None
    probes = [(each, begun(partial(_probe, each))) for each in providers.wanted(here, settings.engine.provider)]

    def absent() -> set[str]:
        found = [(each, probe.result()) for each, probe in probes]
        return providers.absent(runtime.result() if runtime else None, found, here.packages)

    return {
        "board": lambda: machine.board(here),
        "processor": lambda: machine.processor(here),
        "memory": lambda: machine.memory(here, available_bytes()),
        "accelerators": lambda: machine.accelerators(here),
        "packages": lambda: machine.packages(here),
        **({"runtime": lambda: providers.runtime(runtime.result())} if runtime else {}),
        **{each.name: partial(_provider, each, probe, here) for each, probe in probes},
        "provider": lambda: providers.used(settings.engine, here, absent()),
        "service": lambda: box.service(settings.engine, here),
        "models": lambda: models.models(settings, here, absent()),
        "heat": lambda: box.heat(hottest_c=settings.saturation.temperature_c),
        "disk": lambda: box.disk(settings),
        "clock": box.clock,
        "broker": lambda: broker(settings),
        "cloud": lambda: cloud(settings.cloud),
    }


def examine(asked: Mapping[str, Check], patience_s: float = _PATIENCE_S) -> Iterator[Finding]:
    """Run checks; yield what they find in their order, as soon as it is known."""
    until = time.monotonic() + patience_s
    for name, found in [(name, begun(partial(_run, name, check))) for name, check in asked.items()]:
        try:
            yield from found.result(timeout=max(0.0, until - time.monotonic()))
        except TimeoutError:
            late = f"this check did not end within {patience_s:g} s: run the doctor again"
            yield Finding(name, "wrong", late, stops=name in _NEEDED)


def _run(name: str, check: Check) -> list[Finding]:
    try:
        return [*check()]
    except Exception as error:  # noqa: BLE001  a defect in one check must not keep the others from being told
        return [Finding(name, "wrong", f"this check broke ({error!r}): report it", stops=name in _NEEDED)]


def _probe(each: Provider) -> Probed:
    return providers.probe(each.name, *([each.library] if each.library else []))


def _provider(each: Provider, probe: "Future[Probed]", here: Machine) -> Iterator[Finding]:
    return providers.provider(each, probe.result(), here.packages)
