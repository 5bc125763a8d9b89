"""Pictures made fit to leave the box: small, upright, and nothing but what they show."""

import asyncio
import base64
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from agent.contract.errors import Code, JobError
from agent.engines.cloud.bundle import pack, unpack
from agent.engines.cloud.shrink import shrunk
from agent.engines.cloud.shrinking import Shrinker
from agent.engines.worker import limits
from tests.cloud.telling import JPEG, PNG, SECRET, TELLING, chunk, opened
from tests.contract.pictures import encoded
from tests.engines.running import PHOTOGRAPHS
from tests.engines.test_pictures import near

LIMIT = 180_000


def characters(files: list[bytes]) -> int:
    return sum(len(base64.b64encode(file)) for file in files)


def noise(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), Random(1).randbytes(3 * width * height))


def photograph(width: int = 1920, height: int = 1080, kind: str = "JPEG", **options: Any) -> bytes:
    with Image.open(PHOTOGRAPHS[0]) as file:
        return encoded(file.resize((width, height)), kind, **options)


@pytest.mark.parametrize("file", TELLING.values(), ids=TELLING.keys())
def test_nothing_is_left_of_what_a_picture_tells_besides(file: bytes) -> None:
    assert SECRET in file
    (small,) = shrunk([file], LIMIT)
    assert SECRET not in small


@pytest.mark.parametrize("file", TELLING.values(), ids=TELLING.keys())
def test_what_comes_out_has_no_place_where_anything_could_be(file: bytes) -> None:
    (small,) = shrunk([file], LIMIT)
    assert set(segments(small)) == {"JFIF", 0xDB, 0xC0, 0xC4, 0xDA}
    assert small.index(b"\xff\xd9", small.index(b"\xff\xda")) == len(small) - 2


def segments(jpeg: bytes) -> list[int | str]:
    """Return the markers of a JPEG up to its scan; of JFIF's only one without a picture in it is named."""
    found: list[int | str] = []
    at = 2
    while not found or found[-1] != 0xDA:
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4])
        jfif = marker == 0xE0 and length == 16 and jpeg[at + 4 : at + 9] == b"JFIF\0"
        found.append("JFIF" if jfif else marker)
        at += 2 + length
    return found


def test_a_picture_is_turned_upright_before_it_is_told_no_more_how() -> None:
    picture = Image.new("RGB", (64, 32), "blue")
    picture.paste("red", (0, 0, 32, 32))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    (small,) = shrunk([encoded(picture, "JPEG", exif=exif)], LIMIT)
    seen = opened(small)
    assert seen.size == (32, 64)
    assert near(seen.getpixel((16, 8)), (254, 0, 0))


@pytest.mark.parametrize("file", [photograph(), photograph(kind="PNG"), encoded(noise(1600, 1200), "JPEG", quality=95)])
def test_a_picture_gets_smaller_than_the_limit_and_is_still_large_enough_to_see(file: bytes) -> None:
    small = shrunk([file], LIMIT)
    assert characters(small) < LIMIT
    assert min(opened(small[0]).size) >= 336


def test_a_picture_that_fits_keeps_its_size() -> None:
    (small,) = shrunk([photograph(640, 480)], LIMIT)
    assert opened(small).size == (640, 480)


@pytest.mark.parametrize("more", [0, 1, 2, 3, 4])
def test_the_limit_itself_is_not_reached(more: int) -> None:
    limit = characters(shrunk([PNG], LIMIT)) + more
    assert characters(shrunk([PNG], limit)) < limit


def test_the_limit_is_for_all_pictures_of_a_job_together() -> None:
    small = shrunk([photograph(), photograph(400, 300), encoded(noise(1000, 1000)), photograph(1080, 1920)], LIMIT)
    assert characters(small) < LIMIT
    assert [opened(file).width > opened(file).height for file in small] == [True, True, False, False]


def test_what_a_small_picture_leaves_is_for_the_others() -> None:
    (beside, _) = shrunk([photograph(), JPEG], LIMIT)
    assert len(beside) > LIMIT * 3 // 4 // 2


def test_what_would_take_all_that_is_left_of_the_memory_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_bytes", lambda: limits.RESERVE + 1000)
    with pytest.raises(MemoryError):
        shrunk([JPEG], LIMIT)


def test_pictures_that_would_become_too_small_to_see_are_refused() -> None:
    with pytest.raises(JobError) as refused:
        shrunk([encoded(noise(100, 100))] * 9, 9 * 400)
    assert refused.value.code == Code.TOO_LARGE


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_what_is_packed_is_unpacked(files: list[bytes]) -> None:
    assert unpack(pack(files)) == files


@given(st.lists(st.binary(max_size=20), max_size=5), st.integers(1, 30))
def test_what_is_cut_off_or_longer_is_not(files: list[bytes], cut: int) -> None:
    data = pack(files)
    for wrong in (data[:-cut], data + bytes(cut)):
        with pytest.raises(ValueError, match="cut off"):
            unpack(wrong)


# From here on with the process.


async def test_the_process_does_the_same() -> None:
    files = [photograph(), TELLING["exif"], photograph(300, 200, "PNG")]
    assert await Shrinker().shrunk(files, LIMIT) == shrunk(files, LIMIT)


async def test_the_largest_request_that_comes_in_goes_through() -> None:
    (small,) = await Shrinker().shrunk([encoded(noise(2000, 1333))], LIMIT)
    assert opened(small).format == "JPEG"


BROKEN = [b"", b"hello", photograph()[:9000], PNG[:-30], encoded(Image.new("RGB", (64, 64)), "TIFF")]


@pytest.mark.parametrize("file", BROKEN, ids=["nothing", "text", "half a jpeg", "half a png", "tiff"])
async def test_what_is_no_picture_is_refused_in_a_sentence(file: bytes) -> None:
    with pytest.raises(JobError) as refused:
        await Shrinker().shrunk([JPEG, file], LIMIT)
    assert refused.value.code == Code.BAD_REQUEST
    assert "send it again, whole" in refused.value.message


async def test_what_needs_more_memory_than_it_may_have_is_refused_in_a_sentence() -> None:
    size = struct.pack(">II5B", 13_300, 13_300, 8, 2, 0, 0, 0)  # Pillow itself refuses 179 million pixels
    with pytest.raises(JobError) as refused:
        await Shrinker().shrunk([PNG[:8] + chunk(b"IHDR", size) + PNG[33:]], LIMIT)
    assert refused.value.code == Code.OUT_OF_MEMORY
    assert "send a smaller one" in refused.value.message


def test_the_process_can_neither_write_a_file_nor_leave_a_core_nor_run_for_ever() -> None:
    report = (
        "import resource as r; from agent.engines.cloud import shrink; shrink._bound()\n"
        "for each in (r.RLIMIT_FSIZE, r.RLIMIT_CORE, r.RLIMIT_CPU, r.RLIMIT_AS): print(*r.getrlimit(each))\n"
        "print(open('/proc/self/oom_score_adj').read())"
    )
    told = subprocess.run([sys.executable, "-c", report], check=True, capture_output=True, text=True).stdout
    assert told.split() == ["0", "0", "0", "0", "30", "30", str(768 << 20), str(768 << 20), "1000"]


def acting(script: str) -> Shrinker:
    """Make one whose process does as a script says, with ``pack`` at its hands."""
    begin = "import os, socket, sys, time; from agent.engines.cloud.bundle import pack; out = sys.stdout.buffer\n"
    return Shrinker([sys.executable, "-c", begin + script], timeout_s=30.0)


@pytest.mark.parametrize(
    "script",
    [
        "os.abort()",
        "sys.exit(0)",
        "sys.exit(65)",
        "out.write(b'x' * 3)",
        "out.write(pack([b'a', b'b']))",
        "out.write(pack([b'a'])); out.flush(); sys.exit(1)",
        "out.write(pack([b'no code', b'x'])); out.flush(); sys.exit(65)",
        "out.write(bytes(10**6)); time.sleep(3600)",
    ],
    ids=["crash", "silence", "no reason", "babble", "too many", "failure", "unknown reason", "flood"],
)
async def test_a_process_that_does_something_else_costs_its_job_alone(script: str) -> None:
    with pytest.raises(JobError) as refused:
        await acting(script).shrunk([JPEG], LIMIT)
    assert refused.value.code == Code.CLOUD_UNAVAILABLE
    assert "send smaller ones, or try again" in refused.value.message


async def test_a_process_that_cannot_be_started_costs_its_job_alone() -> None:
    with pytest.raises(JobError, match="cannot be started"):
        await Shrinker(["/nowhere/python"]).shrunk([JPEG], LIMIT)


async def test_the_process_has_no_secret_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_SLM__CLOUD__API_KEY", "nvapi-secret")
    (told,) = await acting("out.write(pack([repr(os.environ).encode()]))").shrunk([JPEG], LIMIT)
    assert b"PATH" in told
    assert b"nvapi-secret" not in told


@asynccontextmanager
async def held() -> AsyncIterator[tuple[Callable[[], Awaitable[tuple[int, asyncio.StreamWriter]]], Shrinker]]:
    """Make one whose processes answer when they are let go, and what waits for the next to begin."""
    begun: asyncio.Queue[tuple[int, asyncio.StreamWriter]] = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        begun.put_nowait((int(await reader.readline()), writer))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    script = (
        f"line = socket.create_connection(('127.0.0.1', {port})); line.sendall(b'%d\\n' % os.getpid()); line.recv(1)\n"
        "out.write(pack([b'done']))"
    )
    try:
        yield begun.get, acting(script)
    finally:
        server.close()
        for writer in writers:
            writer.close()


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_who_is_canceled_takes_the_process_along() -> None:
    async with held() as (begun, shrinker):
        task = asyncio.create_task(shrinker.shrunk([JPEG], LIMIT))
        pid, _ = await begun()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not runs(pid)


async def test_one_that_takes_too_long_is_ended() -> None:
    async with held() as (begun, shrinker):
        shrinker._timeout_s = 0.5
        task = asyncio.create_task(shrinker.shrunk([JPEG], LIMIT))
        pid, _ = await begun()
        with pytest.raises(JobError, match="took too long"):
            await task
        assert not runs(pid)


async def test_two_run_at_a_time_and_the_third_when_one_has_ended_or_was_canceled() -> None:
    async with held() as (begun, shrinker):
        tasks = [asyncio.create_task(shrinker.shrunk([JPEG], LIMIT)) for _ in range(4)]
        pids = [await begun(), await begun()]
        pids[0][1].write(b"x")
        _, third = await begun()
        assert sum(task.done() for task in tasks) == 1
        next(task for task in tasks if not task.done()).cancel()
        _, fourth = await begun()
        for writer in (pids[1][1], third, fourth):
            writer.write(b"x")
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found.count([b"done"]) == 3
