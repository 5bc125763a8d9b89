"""The memory that Linux tells of, from a made-up tree of its files: the box's, and what cgroups leave of it."""

from pathlib import Path

import pytest

from agent.kernel_files import available_bytes, total_bytes
from tests.kernel_tree import KernelTree

MIB = 1 << 20
SERVICE = "system.slice/edge-slm.service"


class Root(KernelTree):
    def v1(self, name: str, limit: int, taken: int, files: int = 0) -> None:
        self.write(f"sys/fs/cgroup/memory/{name}/memory.limit_in_bytes", f"{limit}\n")
        self.write(f"sys/fs/cgroup/memory/{name}/memory.usage_in_bytes", f"{taken}\n")
        stat = f"active_file 7\ntotal_inactive_file {files // 2}\ntotal_active_file {files // 2}\n"
        self.write(f"sys/fs/cgroup/memory/{name}/memory.stat", stat)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path)
    root.memory(1000 * MIB, 300 * MIB)
    root.write("proc/self/cgroup", f"0::/{SERVICE}\n")
    return root


def test_the_memory_is_what_the_kernel_says(root: Root) -> None:
    assert (total_bytes(root.path), available_bytes(root.path)) == (1000 * MIB, 300 * MIB)


@pytest.mark.parametrize(
    ("limit", "taken", "files", "left"),
    [
        ("209715200", 50 * MIB, 0, 150 * MIB),
        ("209715200", 190 * MIB, 100 * MIB, 110 * MIB),  # files that were read can be dropped
        ("209715200", 210 * MIB, 0, 0),
        ("max", 50 * MIB, 0, 300 * MIB),
        ("9999999999", 50 * MIB, 0, 300 * MIB),
    ],
)
def test_a_cgroup_that_leaves_less_than_the_box_counts(
    root: Root, limit: str, taken: int, files: int, left: int
) -> None:
    root.v2(SERVICE, limit, taken, files)
    assert available_bytes(root.path) == left


def test_beyond_its_high_mark_a_cgroup_leaves_nothing_though_it_is_not_ended(root: Root) -> None:
    root.v2(SERVICE, "209715200", 60 * MIB, high="104857600")
    assert (total_bytes(root.path), available_bytes(root.path)) == (100 * MIB, 40 * MIB)


@pytest.mark.parametrize("above", ["", "system.slice"])
def test_the_cgroups_above_count_too(root: Root, above: str) -> None:
    root.v2(SERVICE, "max", 50 * MIB)
    root.v2(above, "104857600", 60 * MIB)
    assert (total_bytes(root.path), available_bytes(root.path)) == (100 * MIB, 40 * MIB)


def test_a_cgroup_of_version_1_counts(root: Root) -> None:
    root.write("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n")
    root.v1("docker/abc", 200 * MIB, 190 * MIB, 100 * MIB)
    assert (total_bytes(root.path), available_bytes(root.path)) == (200 * MIB, 110 * MIB)


def test_a_container_whose_own_cgroup_is_mounted_in_place_of_its_path_counts(root: Root) -> None:
    root.write("proc/self/cgroup", "4:memory:/docker/abc\n")
    root.v1("", 200 * MIB, 50 * MIB)
    assert (total_bytes(root.path), available_bytes(root.path)) == (200 * MIB, 150 * MIB)


def test_a_cgroup_of_version_1_without_a_limit_leaves_what_the_box_has(root: Root) -> None:
    root.write("proc/self/cgroup", "4:memory:/\n")
    root.v1("", 9223372036854771712, 50 * MIB)
    assert (total_bytes(root.path), available_bytes(root.path)) == (1000 * MIB, 300 * MIB)


def test_the_cgroup_of_another_controller_does_not_count(root: Root) -> None:
    root.write("proc/self/cgroup", "4:memory:/old\n5:cpu:/tight\n")
    root.v1("tight", 100 * MIB, 50 * MIB)
    assert available_bytes(root.path) == 300 * MIB


@pytest.mark.parametrize("told", ["0::/\0\n", "", "nonsense\n", "0\n", "::::\n"])
def test_a_cgroup_that_makes_no_sense_is_no_error(root: Root, told: str) -> None:
    root.write("proc/self/cgroup", told)
    assert (total_bytes(root.path), available_bytes(root.path)) == (1000 * MIB, 300 * MIB)


def test_of_a_box_that_tells_nothing_the_available_memory_is_unknown(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None


def test_this_machine_tells_of_its_memory() -> None:
    available = available_bytes()
    assert available is not None
    assert 1 * MIB < available <= total_bytes()
