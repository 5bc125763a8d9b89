"""Small files in which Linux tells of itself and of this process, and what they say of the memory there is."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")


def text(path: Path) -> str:
    """Read a file of the kernel's; nothing if it is not there, or its sensor cannot be read now.

    Not by `Path.read_text`: a zone of a Jetson Orin that is off says EAGAIN (prometheus/procfs#698), which Python's raw
    file takes for "no data yet" and returns as None; the layers above it then fail with a TypeError.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return (file.read() or b"").decode("utf-8", "replace")
    except OSError:
        return ""


def number(path: Path, base: int = 10) -> int | None:
    """Read a number; None if there is none, or the word ``max``, as where a cgroup has no limit."""
    try:
        return int(text(path), base)
    except ValueError:
        return None


def available_bytes(root: Path = _ROOT) -> int | None:
    """Return the memory that could be had without swapping: the box's, or what this process's cgroup leaves, if less.

    The box's is ``MemAvailable`` of ``/proc/meminfo`` (Linux 3.14). A cgroup counts the files that it has read as its
    memory; as for the box, they can be dropped. Sources: Documentation/admin-guide/cgroup-v2.rst and
    cgroup-v1/memory.rst. None if nothing of it is told.
    """
    box = _table(root / "proc/meminfo").get("MemAvailable:")
    left = (max(0, limit - group.taken()) for group in _groups(root) if (limit := group.limit()) is not None)
    return min([*([] if box is None else [box << 10]), *left], default=None)


def total_bytes(root: Path = _ROOT) -> int:
    """Return the memory of the box, or what this process's cgroup may have, if that is less."""
    box = _table(root / "proc/meminfo").get("MemTotal:")
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if box is None else box << 10
    limits = (group.limit() for group in _groups(root))
    return min([whole, *(limit for limit in limits if limit is not None)])


@dataclass(frozen=True, slots=True)
class _Names:
    """What a memory cgroup's files are called, and the lines in which it tells of files that it has read."""

    limits: tuple[str, ...]
    usage: str
    files: tuple[str, ...]


_V1 = _Names(("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))
# Beyond `memory.high` a process is not ended, but slowed until nothing works.
_V2 = _Names(("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file"))


@dataclass(frozen=True, slots=True)
class _Group:
    """A memory cgroup."""

    folder: Path
    names: _Names

    def limit(self) -> int | None:
        told = (number(self.folder / name) for name in self.names.limits)
        return min((limit for limit in told if limit is not None), default=None)

    def taken(self) -> int:
        statistics = _table(self.folder / "memory.stat")
        droppable = sum(statistics.get(name, 0) for name in self.names.files)
        return (number(self.folder / self.names.usage) or 0) - droppable


def _groups(root: Path) -> Iterator[_Group]:
    """Yield this process's memory cgroup, of either version, and those above it.

    Without a namespace of its own, a container sees the host's path of its group, and mounted in that group's place:
    what is not there under the path is found above it.
    """
    top = root / "sys/fs/cgroup"
    for line in text(root / "proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0":
            yield from _upwards(top, path, _V2)
        elif "memory" in controllers.split(","):
            yield from _upwards(top / "memory", path, _V1)


def _upwards(top: Path, path: str, names: _Names) -> Iterator[_Group]:
    group = top / path.removeprefix("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(top):
            yield _Group(folder, names)


def _table(path: Path) -> dict[str, int]:
    """Read lines of a name and a number."""
    found = {}
    for line in text(path).splitlines():
        name, _, value = line.partition(" ")
        with suppress(ValueError, IndexError):
            found[name] = int(value.split()[0])
    return found
