"""A fleet in a folder: what all boxes share, what groups of them share, and what each has to itself.

``base.yaml``, ``groups/*.yaml`` and ``devices/*.yaml``. A device's file is named for its id, and `device.groups` in it
names the groups, later over earlier.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from agent.layers.reading import Layer, Origin, Problem, read_file, unreadable

_BASE, _GROUPS, _DEVICES = "base.yaml", "groups", "devices"


def files(path: Path, device: str) -> Sequence[Layer]:
    """Return what a ``--config`` stands for: a file, or for a device of a fleet all files that make it up.

    Args:
        path: a YAML file, a device's file in a fleet's folder, or the folder.
        device: whose part of a folder is wanted.

    """
    file = path if path.parent.name else path.absolute()
    try:
        if path.is_dir():
            return Fleet(path).layers(device)
        if file.parent.name == _DEVICES and (file.parent.parent / _BASE).is_file():
            return Fleet(file.parent.parent).layers(file.stem)
    except OSError as error:  # a folder above it that this user may not enter
        return (unreadable(path, error),)
    return (read_file(path),)


class Fleet:
    """A fleet's folder; what devices share is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shared: dict[Path, Layer] = {}

    @property
    def devices(self) -> list[str]:
        """The devices' ids, sorted."""
        return _stems(self.folder / _DEVICES)

    @property
    def groups(self) -> list[str]:
        """The names of the groups, sorted."""
        return _stems(self.folder / _GROUPS)

    def file(self, device: str) -> Path:
        """Return where a device's own part is."""
        return self.folder / _DEVICES / f"{device}.yaml"

    def group(self, name: str) -> Layer:
        """Return what a group's file says."""
        return self._read_shared(self.folder / _GROUPS / f"{name}.yaml")

    def layers(self, device: str) -> Sequence[Layer]:
        """Return what makes a device up, the lowest first; a file that is not there is a problem of its layer."""
        base, file = self.folder / _BASE, self.file(device)
        if not base.is_file():
            told = "is no fleet's folder, which has a base.yaml, groups/ and devices/; name that, or a file"
            return (Layer(problems=(Problem(told, Origin(str(self.folder))),)),)
        shared = self._read_shared(base)
        if not file.is_file():
            told = f"there is no {device}.yaml for this device; {_hint(device, self.devices)}"
            return (shared, Layer(problems=(Problem(told, Origin(str(file.parent))),)))
        own = read_file(file)
        named = Layer({"device": {"id": device}}, {("device", "id"): Origin(str(file))}, tuple(_misnamed(own, device)))
        return (shared, *self._groups_of(own), named, own)

    def _groups_of(self, own: Layer) -> Iterator[Layer]:
        """Yield the layers of a device's groups, in its order."""
        for number, name in enumerate(groups(own)):
            if (self.folder / _GROUPS / f"{name}.yaml").is_file():
                yield self.group(name)
            else:
                key = ("device", "groups", str(number))
                told = f"there is no {_GROUPS}/{name}.yaml; {_hint(name, self.groups)}"
                yield Layer(problems=(Problem(told, own.origins[key], "device.groups"),))

    def _read_shared(self, file: Path) -> Layer:
        if file not in self._shared:
            layer = read_file(file)
            self._shared[file] = Layer(layer.tree, layer.origins, (*layer.problems, *_personal(layer)))
        return self._shared[file]


def groups(own: Layer) -> Iterable[str]:
    """Return the groups that a device's file names."""
    named: Iterable[str] = own.tree.get("device", {}).get("groups") or ()
    return named


def _stems(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def _hint(name: str, known: Sequence[str]) -> str:
    if near := difflib.get_close_matches(name, known, 1):
        return f"did you mean `{near[0]}`?"
    return f"there are {len(known)}{', such as ' if known else ''}{', '.join(known[:5])}"


def _misnamed(own: Layer, device: str) -> Iterator[Problem]:
    said = own.tree.get("device", {}).get("id") or device
    if said != device:
        told = f"`device.id` is {said}, and the file is named {device}.yaml; give both one name"
        yield Problem(told, own.origins["device", "id"], "device.id")


def _personal(shared: Layer) -> Iterator[Problem]:
    """Yield what only a device's own file can say."""
    for name in shared.tree.get("device", {}):
        key = f"device.{name}"
        yield Problem(f"`{key}` is one device's; set it in its own file", shared.origins["device", name], key)
