"""Small files in which Linux tells of itself and of this process."""

from collections.abc import Iterator
from pathlib import Path


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


def groups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's cgroup (version 2) and of those above it."""
    for line in text(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::/"):
            group = root / "sys/fs/cgroup" / line.removeprefix("0::/")
            yield from (group, *group.parents)
