"""Small real disks, to be filled up: each is a file system of its own, which root may mount."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """Mount a disk of ``size`` bytes at ``path``, a folder that is made for it, and unmount it at the end.

    It is a tmpfs: its ENOSPC is the kernel's own, and filling it takes milliseconds. The agent keeps 8 MiB of it as
    ballast, and wants as much again to be free: less than 24 MiB is a disk that is full from the start. The test is
    skipped where nothing may be mounted.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    path.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        # Lazily, for a box that was just killed may hold a file of it for another moment.
        subprocess.run(["umount", "--lazy", path], check=True)


@contextlib.contextmanager
def full(path: Path) -> Iterator[None]:
    """Fill the disk at ``path`` to its last page, and free it again at the end."""
    fill(path)
    try:
        yield
    finally:
        _filler(path).unlink()


def fill(path: Path) -> None:
    """Fill the disk at ``path``, as a neighbour would that logs for ever; again, where some was freed meanwhile."""
    with _filler(path).open("ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def _filler(path: Path) -> Path:
    return path / "filler"


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Let nothing be written to the disk at ``path``, on which no file is open, until the end."""
    subprocess.run(["mount", "-o", "remount,ro", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", path], check=True)


@contextlib.contextmanager
def failing_disk(path: Path) -> Iterator[Callable[[], object]]:
    """Mount an ext4 of 64 MiB at ``path``; what is yielded damages it, and the kernel makes it read-only at once."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk that fails")
    path.mkdir(parents=True, exist_ok=True)
    image = path.with_name(path.name + ".img")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", image, path], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk that fails can be mounted here: {error}")
    device = Path(f"/sys/dev/block/{os.major(path.stat().st_dev)}:{os.minor(path.stat().st_dev)}").resolve().name
    trigger = Path(f"/sys/fs/ext4/{device}/trigger_fs_error")
    try:
        if not trigger.exists():
            pytest.skip(f"the kernel offers no {trigger} here, by which a disk can be made to fail")
        yield lambda: trigger.write_text("a test")
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
