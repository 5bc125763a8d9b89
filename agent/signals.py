"""How the box is: its memory, temperature and throttling, as Linux tells them. What it does not tell is None."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from agent.admission import Signals
from agent.kernel_files import available_bytes, number, text

_ROOT = Path("/")
_THERMAL = "sys/class/thermal"
# Governors let go and grip again within seconds while the box stays hot, and a Raspberry Pi's firmware is asked by its
# kernel every 2 s. What was throttled so lately is throttled.
_LATELY_S = 10.0
# Of the word of a Raspberry Pi's firmware: low voltage, frequency capped, throttled, soft temperature limit. What is
# shifted by 16 has been since the start, and is no matter now.
_THROTTLED_NOW = 0xF
# Cooling devices that slow a processor down, by how their type begins in the kernels since 5.14 and before, and under
# ACPI. Others cool by a fan, or are no coolers at all: a screen's brightness is one.
_SLOWING = ("cpufreq-", "devfreq-", "thermal-cpufreq-", "thermal-devfreq-", "Processor", "intel_powerclamp")
# NVIDIA's for a Jetson: cpu-throttle-alert, gpu-throttle-alert, soc0-throttle-alert and so on.
_ALERT = "-throttle-alert"
# The type of a zone of a Jetson, up to Xavier, that reads 100 degrees whatever it has (NVIDIA's forum, by way of
# balena-os/balena-jetson#142). As the hottest it would be all that is ever told.
_NO_SENSOR = "PMIC-Die"
# Thousandths of a degree between which silicon computes: a kernel ends the box before the upper one. Outside are
# sensors that are off (-256 degrees) or not wired (125 of a MediaTek tablet's, jxlarrea/kiosk-satellite#654), and what
# is a zone without being a temperature, as voltages on Qualcomm's RB3 (canonical/checkbox#2311).
_COLDEST, _HOTTEST = -55_000, 125_000


class Sensors:
    """Reads everything, in about a millisecond; more where a sensor sits behind a slow bus, so not on the event loop.

    Args:
        root: where ``proc`` and ``sys`` are.
        clock: the monotonic clock, in seconds.

    """

    def __init__(self, root: Path = _ROOT, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._throttled_at = -math.inf

    def read(self) -> Signals:
        """Read everything; nothing that a kernel may lack is an error."""
        slow, now = throttled(self._root), self._clock()
        if slow:
            self._throttled_at = now
        return Signals(
            available_bytes=available_bytes(self._root),
            memory_pressure=memory_pressure(self._root),
            temperature_c=temperature_c(self._root),
            throttled=None if slow is None else now - self._throttled_at < _LATELY_S,
        )


class Watch:
    """Reads the sensors every so often, in a thread of its own, which nobody waits for: a bus may hang.

    Args:
        told: is given what was read, in that thread.
        every_s: seconds between two readings.

    """

    def __init__(self, told: Callable[[Signals], None], every_s: float) -> None:
        self._told = told
        self._every_s = every_s
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="sensors", daemon=True).start()

    def stop(self) -> None:
        """End after the reading that may be under way."""
        self._stopped.set()

    def _run(self) -> None:
        sensors = Sensors()
        while not self._stopped.is_set():
            self._told(sensors.read())
            self._stopped.wait(self._every_s)


def memory_pressure(root: Path = _ROOT) -> float | None:
    """Return the share of the last 10 s in which some task waited for memory, in percent.

    Source: ``/proc/pressure/memory``, Documentation/accounting/psi.rst (Linux 4.20, and not compiled into all).
    """
    for line in text(root / "proc/pressure/memory").splitlines():
        if line.startswith("some avg10="):
            with suppress(ValueError):
                return float(line.removeprefix("some avg10=").partition(" ")[0])
    return None


def temperature_c(root: Path = _ROOT) -> float | None:
    """Return the hottest thermal zone in degrees Celsius.

    Source: Documentation/ABI/testing/sysfs-class-thermal. A sensor that is off refuses to be read, or says nonsense.
    """
    return max(_temperatures(root), default=None)


def throttled(root: Path = _ROOT) -> bool | None:
    """Tell whether the box runs slower than it could now, for its heat or its power supply.

    Sources: the word of a Raspberry Pi's firmware, ``get_throttled``, bits as in the documentation of vcgencmd (the
    kernel calls the file deprecated in one warning a boot, yet the one that it names tells of low voltage alone, and
    the Pi 5 has neither); ``cur_state`` of the cooling devices, Documentation/ABI/testing/sysfs-class-thermal.
    """
    told = [*_firmware(root), *_cooling(root)]
    return any(told) if told else None


def _temperatures(root: Path) -> Iterator[float]:
    for zone in _found(root / _THERMAL, "thermal_zone*"):
        told = number(zone / "temp")
        if told is not None and _COLDEST < told < _HOTTEST and text(zone / "type").strip() != _NO_SENSOR:
            yield told / 1000


def _firmware(root: Path) -> Iterator[bool]:
    for path in _found(root / "sys/devices/platform", "soc*/*:firmware/get_throttled"):
        word = number(path, 16)
        if word is not None:
            yield bool(word & _THROTTLED_NOW)


def _cooling(root: Path) -> Iterator[bool]:
    for device in _found(root / _THERMAL, "cooling_device*"):
        kind = text(device / "type").strip()
        if kind.startswith(_SLOWING) or kind.endswith(_ALERT):
            state = number(device / "cur_state")
            if state is not None:
                yield state > 0  # intel_powerclamp says -1 where it is off


def _found(folder: Path, pattern: str) -> list[Path]:
    """List files of the kernel's; none if a folder goes while it is looked through, as a driver is unloaded."""
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []
