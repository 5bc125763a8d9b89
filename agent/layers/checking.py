"""Whether every device of a fleet could start with what its folder says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.layers.fleet import Fleet, groups
from agent.layers.merging import merge
from agent.layers.reading import ConfigError, Origin, Problem, read_override
from agent.settings import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, and the devices that have it."""

    problem: Problem
    devices: tuple[str, ...] = ()

    def __str__(self) -> str:
        first, others = self.devices[:1], len(self.devices) - 1
        where = self.problem.origin
        if not first or (where and Path(where.source).stem == first[0]):
            return str(self.problem)
        return f"{self.problem} ({first[0]}{f' and {others} more' if others else ''})"


@dataclass(frozen=True, slots=True)
class Report:
    """What a fleet looks like.

    Attributes:
        devices: all, each with its groups.
        findings: what is wrong, each thing once.
        unused: files of groups that no device is in.

    """

    devices: Mapping[str, tuple[str, ...]]
    findings: tuple[Finding, ...]
    unused: tuple[str, ...] = ()


def check(folder: Path, overrides: Sequence[str] = ()) -> Report:
    """Check a fleet's folder, each device with these ``dotted.key=value`` over it.

    The environment has no part in it: it is this machine's, which need not be any of the devices.
    """
    fleet, above = Fleet(folder), [*map(read_override, overrides)]
    devices: dict[str, tuple[str, ...]] = {}
    harmed: dict[Problem, list[str]] = {problem: [] for problem in _strays(fleet)}
    right: dict[str, Settings] = {}
    for device in fleet.devices:
        layers = fleet.layers(device)
        devices[device] = tuple(groups(layers[-1]))
        try:
            right[device] = merge([*layers, *above]).settings
        except ConfigError as wrong:
            for problem in wrong.problems:
                harmed.setdefault(problem, []).append(device)
    harmed |= {problem: [device] for device, problem in _named_as_a_pool(fleet, right)}
    unused = [name for name in fleet.groups if not any(name in each for each in devices.values())]
    for name in unused:
        harmed |= {problem: [] for problem in fleet.group(name).problems}
    findings = tuple(Finding(problem, tuple(harmed[problem])) for problem in harmed)
    return Report(devices, findings, tuple(unused))


def _strays(fleet: Fleet) -> Iterator[Problem]:
    """Yield what a reader would think is part of a fleet, and is not."""
    if not fleet.devices:
        told = "there is no device to check; a fleet's folder has a base.yaml, groups/*.yaml and devices/*.yaml"
        yield Problem(told, Origin(str(fleet.folder)))
    for file in sorted(fleet.folder.glob("*/*.yml")):
        yield Problem(f"is not read; name it {file.stem}.yaml", Origin(str(file)))


def _named_as_a_pool(fleet: Fleet, settings: Mapping[str, Settings]) -> Iterator[tuple[str, Problem]]:
    members = {each.pool: device for device, each in settings.items() if each.pool}
    for pool in sorted(members.keys() & settings.keys()):
        told = f"a box with a pool's name would have every job of the pool, whose member is {members[pool]}; rename one"
        yield pool, Problem(told, Origin(str(fleet.file(pool))), "device.id")
