"""The box around the processor: its heat, its disk, its clock, and what its service may open."""

import ctypes
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent import signals
from agent.doctor.finding import Finding
from agent.hardware.choice import choose
from agent.hardware.machine import Machine
from agent.kernel_files import text
from agent.settings import Engine, Settings

_ROOT = Path("/")
_UNIT = "etc/systemd/system/edge-slm.service"
_SYNCHRONISED = "run/systemd/timesync/synchronized"
# A box without a clock of its own begins in 1970, or when its system was made. 1 January 2026: before this was written.
_EARLIEST_S = 1_767_225_600
_TIME_ERROR = 5  # of adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 208  # of struct timex; more than any architecture's


def heat(root: Path = _ROOT, hottest_c: float = 85) -> Iterator[Finding]:
    """Yield the temperature, and whether the box is slowed down for it or for its power supply."""
    temperature, slowed = signals.temperature_c(root), signals.throttled(root)
    if slowed:
        yield Finding(
            "heat",
            "wrong",
            f"the box is slowed down{_at(temperature)}, for its heat or its power: cool it, or give it a better supply",
        )
    elif temperature is None:
        yield Finding("heat", "told", "no sensor tells the temperature")
    elif temperature >= hottest_c:
        yield Finding(
            "heat", "wrong", f"{temperature:.0f} °C, and from {hottest_c:g} on it counts as saturated: cool it"
        )
    else:
        known = "nothing tells whether it is slowed down" if slowed is None else "not slowed down"
        yield Finding("heat", "well", f"{temperature:.0f} °C, {known}")


def disk(settings: Settings) -> Iterator[Finding]:
    """Yield whether the box's state can be written, and how much room there is for it."""
    folder = settings.state_dir
    # Not by `Path.exists`, which raises where a folder above may not be looked into: systemd's /var/lib/private.
    here = next(each for each in (folder, *folder.parents) if os.path.exists(each))  # noqa: PTH110
    free = shutil.disk_usage(here).free
    try:
        with tempfile.TemporaryFile(dir=here) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        what = "cannot be written" if here == folder else "cannot be made" if _absent(folder) else "cannot be reached"
        advice = (
            "make room" if error.errno == errno.ENOSPC else "run it as the user that the box runs as, or set state_dir"
        )
        yield Finding("disk", "wrong", f"{folder} {what} by this user ({error.strerror}): {advice}", stops=True)
        return
    room = f"{free / 1e9:.1f} GB free for {folder}"
    if free < settings.spool.max_bytes:
        need = f"{settings.spool.max_bytes / 1e9:.1f} GB"
        yield Finding("disk", "wrong", f"{room}, and the spool may take {need}: make room, or lower spool.max_bytes")
    else:
        yield Finding("disk", "well", room)


def service(engine: Engine, machine: Machine, root: Path = _ROOT) -> Iterator[Finding]:
    """Yield whether the service lacks the devices that this user has: systemd hides them all, unless it is told."""
    if len(choose(engine.provider, engine.provider_options, machine)) == 1 or not (root / _UNIT).exists():
        return
    if not any("PrivateDevices=no" in text(each).split() for each in root.glob(f"{_UNIT}.d/*.conf")):
        yield Finding(
            "service",
            "wrong",
            "it may open no accelerator, whatever this user may: copy systemd/edge-slm.service.d/gpu.conf to "
            f"/{_UNIT}.d, and run `sudo systemctl daemon-reload` and `sudo systemctl restart edge-slm`",
        )


def clock(
    root: Path = _ROOT, now: float | None = None, unsynchronised: Callable[[], bool | None] | None = None
) -> Iterator[Finding]:
    """Yield whether the clock is right, without which TLS believes nobody.

    Args:
        root: where ``run`` is.
        now: seconds since 1970; by default this machine's.
        unsynchronised: asks the kernel; by default this machine's.

    """
    now = time.time() if now is None else now
    unkept = (unsynchronised or _unsynchronised)()
    date = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now))
    if now < _EARLIEST_S:
        yield Finding("clock", "wrong", f"it says {date} UTC: set it, or let it be set (timedatectl set-ntp true)")
    elif unkept is False or (root / _SYNCHRONISED).exists():
        yield Finding("clock", "well", f"synchronised, {date} UTC")
    elif unkept is None:
        yield Finding("clock", "told", f"{date} UTC; the kernel does not tell whether it is synchronised")
    else:
        yield Finding(
            "clock", "wrong", f"{date} UTC, which nobody keeps right: let it be set by NTP (timedatectl set-ntp true)"
        )


def _unsynchronised() -> bool | None:
    """Ask the kernel, adjtimex(2), which every NTP client tells; None where it may not be asked."""
    try:
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state == _TIME_ERROR


def _absent(folder: Path) -> bool:
    """Whether a folder is known not to be there; a folder above may hide it."""
    try:
        folder.stat()
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def _at(temperature: float | None) -> str:
    return "" if temperature is None else f" at {temperature:.0f} °C"
