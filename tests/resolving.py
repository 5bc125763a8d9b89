"""Whether the extras can be installed: ``python -m tests.resolving [EXTRA…]``; `scripts/resolve-extras`.

pip's own resolver is asked, for machines that are not here. It judges markers (``; python_version < "3.12"``) by the
Python that it runs on, and that alone may differ from what such a machine would say.
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from packaging.utils import canonicalize_name

_PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BASE: list[str] = _PROJECT["dependencies"]
EXTRAS: dict[str, list[str]] = {name: list(each) for name, each in _PROJECT["optional-dependencies"].items()}
ARCHITECTURES = ("x86_64", "aarch64")
PYTHONS = ("3.11", "3.12", "3.13")
WITHOUT_WHEELS = {("openvino", "aarch64")}
"""What nobody has built in November 2026."""

# Debian 12's, and so a Raspberry Pi OS's of 2023 and later; a wheel for an older one runs there as well.
_GLIBC = 36
_OLDEST_GLIBC = 17
# pip waits for the index most of the time.
_AT_ONCE = 4


class Machine(NamedTuple):
    """A machine that may have to install an extra."""

    architecture: str
    python: str

    @property
    def options(self) -> list[str]:
        """What pip is told of it."""
        built = [f"manylinux_2_{minor}" for minor in range(_GLIBC, _OLDEST_GLIBC - 1, -1)]
        platforms = [f"--platform={each}_{self.architecture}" for each in (*built, "manylinux2014")]
        return ["--only-binary=:all:", f"--python-version={self.python}", *platforms]


def resolve(requirements: Iterable[str], machine: Machine) -> dict[str, str]:
    """Return what pip would install for some requirements and all that they need, name by name.

    Args:
        requirements: by which it is asked.
        machine: for which.

    Raises:
        LookupError: it finds no way; the message is pip's.

    """
    options = ["--dry-run", "--ignore-installed", "--report=-", "--target=unused", "--use-feature=fast-deps"]
    told = _pip("install", *options, *machine.options, *requirements)
    if told.returncode:
        raise LookupError(told.stderr.strip().rpartition("\n")[2])
    packages = (package["metadata"] for package in json.loads(told.stdout)["install"])
    return {canonicalize_name(package["name"]): package["version"] for package in packages}


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries=1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def main(extras: list[str]) -> int:
    """Resolve the extras for every machine, and print a line for each. Return the exit code."""
    asked = [
        (extra, Machine(architecture, python))
        for extra in extras or EXTRAS
        for architecture in ARCHITECTURES
        if (extra, architecture) not in WITHOUT_WHEELS
        for python in PYTHONS
    ]
    failures = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for line, well in pool.map(_told, asked):
            print(line, flush=True)  # noqa: T201  it is a script, too
            failures += not well
    return min(failures, 1)


def _told(asked: tuple[str, Machine]) -> tuple[str, bool]:
    extra, machine = asked
    on = f"{extra:13} {machine.architecture:8} {machine.python:5}"
    try:
        found = resolve([*BASE, *EXTRAS[extra]], machine)
    except LookupError as error:
        return f"✗ {on} {error}", False
    runtime = ", ".join(f"{name} {version}" for name, version in found.items() if name.startswith("onnxruntime"))
    return f"✓ {on} {len(found)} packages: {runtime}", True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
