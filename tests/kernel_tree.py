"""A made-up tree of the files in which Linux tells of itself."""

from pathlib import Path


class KernelTree:
    """A tree of files as a kernel shows them.

    Args:
        path: its root.

    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="latin-1")  # so that what is not ASCII is not UTF-8

    def memory(self, total: int, available: int) -> None:
        self.write("proc/meminfo", f"MemTotal:  {total >> 10} kB\nMemAvailable:  {available >> 10} kB\nHugePages: 0\n")

    def v2(self, name: str, limit: str, taken: int, files: int = 0, high: str = "max") -> None:
        """Add a memory cgroup of version 2."""
        self.write(f"sys/fs/cgroup/{name}/memory.max", f"{limit}\n")
        self.write(f"sys/fs/cgroup/{name}/memory.high", f"{high}\n")
        self.write(f"sys/fs/cgroup/{name}/memory.current", f"{taken}\n")
        stat = f"anon {taken - files}\ninactive_file {files // 2}\nactive_file {files // 2}\n"
        self.write(f"sys/fs/cgroup/{name}/memory.stat", stat)
