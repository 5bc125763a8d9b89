"""What is asked of the machine, as its administrator would."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

SOURCE = Path(__file__).parents[3]
"""The checkout that is proven."""

HOME = Path("/opt/edge-slm")
CONFIG = Path("/etc/edge-slm/box.yaml")
STATE = Path("/var/lib/edge-slm")
DROPINS = Path("/etc/systemd/system/edge-slm.service.d")


class Failed(Exception):  # noqa: N818  a step has failed, which is a result
    """What was promised is not so."""


class Skipped(Exception):  # noqa: N818  neither is this an error
    """It cannot be shown on this machine."""


def check(holds: object, promise: str) -> None:
    """Fail a step, unless what it promises holds."""
    if not holds:
        raise Failed(promise)


def run(
    *command: str | Path, code: int | None = 0, timeout: float = 300, environment: Mapping[str, str] | None = None
) -> str:
    """Run a command and return what it printed; fails on any but the expected exit code (None: whatever it is)."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
    )
    if code is not None and done.returncode != code:
        last = "\n      ".join(done.stdout.splitlines()[-12:])
        raise Failed(f"{' '.join(map(str, command))} ended with {done.returncode}:\n      {last}")
    return done.stdout


def script(name: str, *arguments: str | Path, code: int = 0, **environment: str) -> str:
    """Run one of the checkout's scripts."""
    return run(SOURCE / "scripts" / name, *arguments, code=code, environment=environment)


def systemctl(*arguments: str, timeout: float = 300) -> str:
    """Tell systemd something."""
    return run("systemctl", *arguments, timeout=timeout)


def of_service(name: str) -> str:
    """Return one of the service's properties."""
    return systemctl("show", f"--property={name}", "--value", "edge-slm").strip()


def pid() -> int:
    """Return the agent's process id; 0 if it does not run."""
    return int(of_service("MainPID"))


def worker(model: str) -> int:
    """Return the process id of the inference process that runs a model."""
    for each in Path("/proc").glob("[0-9]*"):
        try:
            words = (each / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "agent.engines.worker" in words and any(word.endswith(f"/{model}") for word in words):
            return int(each.name)
    raise Failed(f"no process runs {model}")


def journal(since: float) -> str:
    """Return what the service, and systemd about it, has logged since."""
    return run("journalctl", "--unit=edge-slm", f"--since=@{since:.6f}", "--output=cat", "--no-pager")


def drop_in(name: str, text: str) -> None:
    """Change the service's unit; takes effect with its next start. Without text, the change is taken back."""
    DROPINS.mkdir(exist_ok=True)
    file = DROPINS / f"{name}.conf"
    if text:
        file.write_text(f"[Service]\n{text}\n")
    else:
        file.unlink(missing_ok=True)
    systemctl("daemon-reload")


def wait_until(holds: Callable[[], object], promise: str, timeout: float = 60) -> float:
    """Wait for something that can only be looked at, and return how long that took, in seconds."""
    began = time.monotonic()
    while not holds():
        check(time.monotonic() < began + timeout, f"{promise} (waited {timeout:.0f} s)")
        time.sleep(0.05)
    return time.monotonic() - began


def ready() -> bool:
    """Whether the service runs, and has said that it is ready."""
    return of_service("ActiveState") == "active"


def version(number: str, *edits: tuple[str, str, str]) -> Path:
    """Make a checkout of another version.

    Args:
        number: its version.
        edits: files, and what is to be replaced in them by what.

    """
    folder = Path("/tmp/versions") / number  # noqa: S108  a machine of our own
    run("rm", "-rf", folder)
    folder.mkdir(parents=True)
    for part in ("agent", "pyproject.toml", "README.md", "LICENSE"):
        run("cp", "-r", SOURCE / part, folder)
    now = next(line for line in (SOURCE / "pyproject.toml").read_text().splitlines() if line.startswith("version = "))
    for file, old, new in (("pyproject.toml", now, f'version = "{number}"'), *edits):
        text = (folder / file).read_text()
        check(old in text, f"{file} has no {old!r} any more: mend this proof")
        (folder / file).write_text(text.replace(old, new, 1))
    return folder
