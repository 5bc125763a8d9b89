"""Which devices of a fleet's folder are meant, and what is to be changed on them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from agent.contract.topics import Topics
from agent.errors import UsageError
from agent.layers import ConfigError, Loaded, Problem
from agent.layers.fleet import Fleet
from agent.layers.merging import merge
from agent.layers.reading import read_text
from agent.remote import laid_over


@dataclass(frozen=True, slots=True)
class Target:
    """A device, as its fleet's folder describes it."""

    id: str
    groups: tuple[str, ...]
    topics: Topics


def chosen(
    folder: Path, groups: Sequence[str] = (), devices: Sequence[str] = (), change: tuple[str, bytes] | None = None
) -> list[Target]:
    """Find devices in a fleet's folder, those of the groups and those that are named; all, where neither are.

    Args:
        folder: the fleet's.
        groups: names of groups.
        devices: ids of devices.
        change: a layer and what to call it, for which each device has to be right.

    Raises:
        UsageError: there is no such group or device.
        ConfigError: a device is wrong in itself, or with the change.

    """
    fleet = Fleet(folder)
    _known("group", groups, fleet.groups)
    _known("device", devices, fleet.devices)
    if not fleet.devices:
        raise UsageError(f"{folder} has no devices/*.yaml: name a fleet's folder")
    found, wrong = [], dict[Problem, None]()
    for device in fleet.devices:
        try:
            settings = merge(fleet.layers(device)).settings
            if (groups or devices) and device not in devices and not {*groups} & {*settings.device.groups}:
                continue
            if change is not None and change[1].strip():
                laid_over(_Reader(fleet, device), *change)
        except ConfigError as error:
            wrong |= dict.fromkeys(error.problems)
        else:
            found.append(Target(device, settings.device.groups, Topics(settings.mqtt.root, device)))
    if wrong:
        raise ConfigError([*wrong])
    if not found:
        raise UsageError(f"no device is in {' or '.join(groups)}: name another group, or devices")
    return found


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a device's layers as the device does, but for its environment."""

    fleet: Fleet
    device: str

    def __call__(self, *, remote: tuple[str, bytes] | None = None) -> Loaded:
        return merge([*self.fleet.layers(self.device), *([read_text(*remote)] if remote else [])])


def changed(assignments: Sequence[str]) -> bytes:
    """Write ``dotted.key=value`` as a layer, in JSON. Values are text, as in any layer; ``null`` is null.

    Raises:
        UsageError: one has no such form, or contradicts another.

    """
    tree: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"`{assignment}` should have the form key=value, as in engine.slots=2")
        *above, last = key.split(".")
        inner = tree
        for name in above:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise UsageError(f"`{key}` is below a key that has a value already")
        if last in inner:
            raise UsageError(f"`{key}` is set twice")
        inner[last] = None if text == "null" else text
    return json.dumps(tree, ensure_ascii=False, sort_keys=True).encode()


def _known(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"there is no {kind} {name} in this fleet{''.join(_hint(name, known))}")


def _hint(name: str, known: Sequence[str]) -> Iterator[str]:
    if near := get_close_matches(name, known, 1):
        yield f": did you mean {near[0]}?"
    elif known:
        yield f", which has {', '.join(known[:8])}"
