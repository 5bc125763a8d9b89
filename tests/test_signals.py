"""What Linux tells of the box's state, from a made-up tree of its files; and from this machine's."""

import os
import queue
import threading
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agent.admission import Signals
from agent.signals import Sensors, Watch, memory_pressure, temperature_c, throttled
from tests.kernel_tree import KernelTree

MIB = 1 << 20
THERMAL = "sys/class/thermal"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


class Root(KernelTree):
    def zone(self, number: int, kind: str, told: str) -> None:
        self.write(f"{THERMAL}/thermal_zone{number}/type", f"{kind}\n")
        self.write(f"{THERMAL}/thermal_zone{number}/temp", f"{told}\n")

    def cooling(self, number: int, kind: str, state: str) -> None:
        self.write(f"{THERMAL}/cooling_device{number}/type", f"{kind}\n")
        self.write(f"{THERMAL}/cooling_device{number}/cur_state", f"{state}\n")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


@pytest.fixture
def full(root: Root) -> Root:
    """Make a tree in which everything can be read."""
    root.memory(1000 * MIB, 300 * MIB)
    root.write("proc/pressure/memory", "some avg10=12.50 avg60=3.00 avg300=1.00 total=5\n")
    root.write("proc/self/cgroup", "0::/system.slice/edge-slm.service\n")
    root.v2("system.slice/edge-slm.service", "209715200", 50 * MIB)
    root.zone(0, "cpu-thermal", "50000")
    root.cooling(0, "cpufreq-cpu0", "0")
    root.write(FIRMWARE, "0\n")
    return root


@pytest.fixture
def silent() -> Iterator[int]:
    """Yield the descriptor of a file whose reader is told to try again: EAGAIN."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader
    os.close(reader)
    os.close(writer)


def test_all_is_told_where_all_can_be_read(full: Root) -> None:
    assert Sensors(full.path).read() == Signals(
        available_bytes=150 * MIB, memory_pressure=12.5, temperature_c=50.0, throttled=False
    )


def test_a_kernel_that_tells_nothing_is_no_error(root: Root) -> None:
    assert Sensors(root.path).read() == Signals()


def test_files_that_make_no_sense_are_no_error(root: Root) -> None:
    for name in (
        "proc/meminfo",
        "proc/self/cgroup",
        "proc/pressure/memory",
        "sys/fs/cgroup/memory.max",
        f"{THERMAL}/thermal_zone0/temp",
        FIRMWARE,
    ):
        root.write(name, "0::/\nsome avg10=much\nMemAvailable:\nMemAvailable: lots\n\xff")
    root.cooling(0, "cpufreq-cpu0", "?")
    assert Sensors(root.path).read() == Signals()


def test_what_cannot_be_read_is_no_error(root: Root) -> None:
    (root.path / "proc/meminfo").mkdir(parents=True)
    assert Sensors(root.path).read() == Signals()


def test_files_that_say_try_again_are_no_error(full: Root, monkeypatch: pytest.MonkeyPatch, silent: int) -> None:
    def offline(_path: Path, mode: str = "r", buffering: int = -1, **more: Any) -> Any:
        return open(silent, mode, buffering, closefd=False, **more)

    monkeypatch.setattr(Path, "open", offline)
    assert Sensors(full.path).read() == Signals()


def test_files_that_fail_under_the_reader_are_no_error(full: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FileIO):
        def read(self, _size: int | None = -1, /) -> NoReturn:
            raise OSError

    monkeypatch.setattr(Path, "open", lambda path, *_, **__: Broken(path))
    assert Sensors(full.path).read() == Signals()


def test_folders_that_go_while_they_are_looked_through_are_no_error(
    full: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_folder: Path, _pattern: str) -> Iterator[Path]:
        yield full.path
        raise FileNotFoundError

    monkeypatch.setattr(Path, "glob", gone)
    told = Sensors(full.path).read()
    assert (told.temperature_c, told.throttled) == (None, None)


# Memory


def test_the_pressure_is_the_share_of_the_last_ten_seconds_in_which_some_task_waited(root: Root) -> None:
    lines = "some avg10=12.50 avg60=3.00 avg300=1.00 total=5\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=3\n"
    root.write("proc/pressure/memory", lines)
    assert memory_pressure(root.path) == 12.5


# Heat


def test_the_temperature_is_the_hottest_sensors_that_can_be_read(root: Root) -> None:
    for number, told in enumerate(["51687", "48500", ""]):
        root.zone(number, "cpu-thermal", told)
    (root.path / THERMAL / "thermal_zone9/temp").mkdir(parents=True)  # reading it is an error
    assert temperature_c(root.path) == 51.687


def test_a_zone_that_does_not_tell_its_type_counts(root: Root) -> None:
    root.write(f"{THERMAL}/thermal_zone0/temp", "51687\n")
    assert temperature_c(root.path) == 51.687


def test_the_zone_of_a_jetson_that_always_says_100_does_not_count(root: Root) -> None:
    for number, (kind, told) in enumerate({"CPU-therm": "34000", "PMIC-Die": "100000", "AO-therm": "41500"}.items()):
        root.zone(number, kind, told)
    assert temperature_c(root.path) == 41.5


def test_a_sensor_that_really_has_100_degrees_counts(root: Root) -> None:
    root.zone(0, "CPU-therm", "100000")
    assert temperature_c(root.path) == 100.0


@pytest.mark.parametrize("told", ["-256000", "-274000", "125000", "3900000", "9" * 400, "9" * 5000])
def test_what_no_box_in_use_can_have_is_no_temperature(root: Root, told: str) -> None:
    root.zone(0, "gpu-thermal", told)
    assert temperature_c(root.path) is None


@pytest.mark.parametrize(
    ("word", "slow"),
    [
        ("0\n", False),
        ("50005\n", True),  # low voltage, and throttled for it
        ("50000\n", False),  # both were, since the start
        ("80008\n", True),  # the soft temperature limit
        ("e0002\n", True),  # frequency capped
    ],
)
def test_a_raspberry_pi_is_throttled_by_the_lower_bits_of_its_firmwares_word(root: Root, word: str, slow: bool) -> None:
    root.write(FIRMWARE, word)
    assert throttled(root.path) is slow


def test_the_firmware_is_found_where_its_bus_has_an_address_in_its_name(root: Root) -> None:
    root.write("sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled", "4\n")
    assert throttled(root.path) is True


@pytest.mark.parametrize(
    "kind",
    [
        "cpufreq-cpu0",
        "thermal-cpufreq-0",
        "devfreq-17000000.gpu",
        "cpu-throttle-alert",
        "Processor",
        "intel_powerclamp",
    ],
)
@pytest.mark.parametrize(("state", "slow"), [("0", False), ("3", True), ("-1", False)])
def test_a_cooling_device_that_slows_a_processor_down_throttles_while_it_is_on(
    root: Root, kind: str, state: str, slow: bool
) -> None:
    root.cooling(0, kind, state)
    assert throttled(root.path) is slow


@pytest.mark.parametrize("kind", ["pwm-fan", "gpio-fan", "Fan", "LCD", "hot-surface-alert", "TCC Offset"])
def test_what_cools_by_other_means_does_not_count(root: Root, kind: str) -> None:
    root.cooling(0, kind, "3")
    assert throttled(root.path) is None


def test_one_of_several_that_slow_it_down_is_enough(root: Root) -> None:
    root.write(FIRMWARE, "0\n")
    root.cooling(0, "cpufreq-cpu0", "0")
    root.cooling(1, "gpu-throttle-alert", "1")
    assert throttled(root.path) is True


def test_what_was_throttled_within_the_last_ten_seconds_is_throttled(root: Root) -> None:
    clock = iter([100.0, 109.0, 110.0])
    sensors = Sensors(root.path, clock=lambda: next(clock))
    told = []
    for word in ("4\n", "0\n", "0\n"):
        root.write(FIRMWARE, word)
        told.append(sensors.read().throttled)
    assert told == [True, True, False]


def test_a_box_that_was_not_throttled_since_the_agents_start_is_not(root: Root) -> None:
    root.write(FIRMWARE, "0\n")
    assert Sensors(root.path, clock=lambda: 1.0).read().throttled is False


# This machine


def test_everything_is_read_within_two_milliseconds_though_there_are_as_many_sensors_as_a_jetson_has(
    full: Root,
) -> None:
    for number in range(10):
        full.zone(number, "cpu-thermal", "50000")
    for number in range(24):
        full.cooling(number, f"cpufreq-cpu{number}" if number < 16 else "soc0-throttle-alert", "0")
    sensors, took = Sensors(full.path), []
    for _ in range(20):
        began = time.perf_counter()
        sensors.read()
        took.append(time.perf_counter() - began)
    assert min(took) < 0.002


def test_this_machine_tells_of_its_memory() -> None:
    available = Sensors().read().available_bytes
    assert available is not None
    assert available > MIB


def test_the_watch_tells_what_it_reads_until_it_is_stopped() -> None:
    told: queue.SimpleQueue[Signals] = queue.SimpleQueue()
    watch = Watch(told.put, 0.001)
    watch.start()
    assert [type(told.get()) for _ in range(3)] == [Signals] * 3
    watch.stop()
    for thread in threading.enumerate():
        if thread.name == "sensors":
            thread.join()
