"""The rows about pictures: what a closer look costs, and what a frame costs beside the model."""

import tempfile
import time
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from random import Random
from statistics import median

from PIL import Image

from agent.bench import VISION_ROWS
from agent.bench.rig import CAMERA, Rig, children
from agent.bench.row import Heard, Measure, Row, heard
from agent.client import Client
from agent.metrics import resident_bytes
from agent.models import shapes

_REPEATS = 5
# A model of full size takes minutes for one close look, and then noise is not what a repeat is for.
_ENOUGH_S = 300
_FULL_HD = (1920, 1080)
_FRAME_BYTES = 500_000


def _frame(number: int, size: tuple[int, int] = _FULL_HD) -> bytes:
    """Draw a JPEG that no other ``number`` has; with a sensor's noise, it has the bytes of a photograph.

    Of full HD it has about 480 KB; without noise it would have 55, and decode in half the time.
    """
    drawn = shapes.draw(Random(number), size).image  # noqa: S311  it has no secret to keep
    noise = Image.effect_noise(size, 40).convert("RGB")
    file = BytesIO()
    Image.blend(drawn, noise, 0.25).save(file, "JPEG", quality=78)
    return file.getvalue()


async def detail(rig: Rig) -> list[Row]:
    """Ask about pictures of full HD over MQTT, at both ends of detail, until the first token."""
    looks: dict[str, list[Heard]] = {"low": [], "high": []}
    async with rig.box(vision=rig.vision) as box, box.client("bench") as client:
        await _look(client, 0, "low")
        begun = time.perf_counter()
        for number in range(1, _REPEATS + 1):
            # Another picture each time, so that nothing can help a repeat.
            looks["low"].append(await _look(client, number, "low"))
            looks["high"].append(await _look(client, -number, "high"))
            if time.perf_counter() - begun > _ENOUGH_S:
                break
    low, high = (median(each.total_s for each in looks[name]) for name in ("low", "high"))
    low_tokens, high_tokens = (looks[name][0].final["usage"]["image_tokens"] for name in ("low", "high"))
    return [
        Row(
            "time to first token of a 1920x1080 picture, low against high detail",
            low / high,
            "x",
            0.2,
            "at most",
            f"{low:.3g} against {high:.3g} s, {low_tokens} against {high_tokens} tokens, {len(looks['low'])} times",
        ),
    ]


async def _look(client: Client, number: int, how: str) -> Heard:
    """Ask for one token. A model of random weights may spell it with no letter, so its time is the final's."""
    picture = b64encode(_frame(number)).decode("ascii")
    request = {"prompt": "What is in the picture?", "image": picture, "detail": how, "max_tokens": 1, "temperature": 0}
    return await heard(client.ask(request, CAMERA))


async def prepare(rig: Rig) -> list[Row]:
    """Prepare JPEGs of full HD at low detail, as the worker does, and with the library's own processor."""
    with tempfile.TemporaryDirectory(prefix="edge-slm-bench-") as name:
        files = [Path(name, f"{number}.jpg") for number in range(_REPEATS)]
        for number, file in enumerate(files):
            file.write_bytes(_frame(number))
        times = await rig.prepared(files)
    ours, theirs = (median(each[whose][-1] for each in times) for whose in ("ours_s", "library_s"))
    return [
        Row(
            "preparing a 1920x1080 JPEG at low detail, against the library's own processor",
            ours / theirs,
            "x",
            0.5,
            "at most",
            f"{ours * 1000:.3g} against {theirs * 1000:.3g} ms, {len(files)} files from their bytes to tensors",
        ),
    ]


async def resident(rig: Rig) -> list[Row]:
    """Watch the worker's memory over a thousand frames of many sizes."""
    count, settled = 1000, 100
    frames = [_frame(number, shapes.SIZES[number % len(shapes.SIZES)]) for number in range(3 * len(shapes.SIZES))]
    levels = []
    async with rig.box(vision=rig.shapes) as box, box.client("bench") as client:
        for number in range(count):
            await heard(client.show(CAMERA, frames[number % len(frames)]))
            levels.append(sum(resident_bytes(child) for child in children(box.agent.pid)))
    before, most = levels[settled - 1], max(levels[settled:])
    return [
        Row(
            f"worker's resident memory over {count:,} frames: the most after the first {settled}, against then",
            most / before,
            "x",
            1.05,
            "at most",
            f"{most / 1e6:.0f} against {before / 1e6:.0f} MB, shapes-vision, {len(shapes.SIZES)} sizes, low detail",
        ),
    ]


async def admitted(rig: Rig) -> list[Row]:
    """Publish frames to a box whose engine answers at once; its word that it has them is sent when they are on disk."""
    count, warm = 100, 5
    frames = [_frame(number).ljust(_FRAME_BYTES, b"\0") for number in range(5)]
    async with rig.box("agent.bench.child", "fake", vision=rig.vision) as box, box.client("bench") as client:
        shown = [await heard(client.show(CAMERA, frames[number % len(frames)])) for number in range(warm + count)]
    return [
        Row(
            "a frame of 500 KB published → its job admitted, QoS 1, durable: p50",
            median(each.accepted_s for each in shown[warm:]) * 1000,
            "ms",
            20,
            "at most",
            f"{count} frames, one after another; the camera runs on this machine too",
        ),
    ]


MEASURES: dict[str, Measure] = dict(zip(VISION_ROWS, (detail, prepare, resident, admitted), strict=True))
