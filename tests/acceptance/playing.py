"""Cameras that play photographs at a box, with text jobs between, and what can be held against it afterwards.

``scripts/soak-cameras`` runs this for a minute; the suite, for some seconds.
"""

import argparse
import asyncio
import os
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

from agent.demo import models_dir
from agent.metrics import resident_bytes
from agent.models import pull
from agent.models.shapes import draw
from tests.boxes import Box
from tests.brokers import Broker
from tests.devices import Device

CAMERAS = {name: {"prompt": "What is in the picture?", "detail": "low", "max_tokens": 32} for name in ("porch", "yard")}
_TEXT_EVERY_S = 0.5
# Frames until the allocators have settled, as in the bench.
_WARM_UP = 100
_SAMPLE_S = 0.1


@dataclass
class Played:
    """What happened.

    Attributes:
        sent: frames.
        finals: of frames and of texts, by their ids.
        memory: resident bytes of the agent and of its worker, sampled after the warm-up.

    """

    sent: int = 0
    frames: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: dict[str, dict[str, Any]] = field(default_factory=dict)
    memory: list[tuple[int, int]] = field(default_factory=list)

    @property
    def answered(self) -> list[dict[str, Any]]:
        """The finals of frames that were looked at."""
        return [final for final in self.frames.values() if final["error"] is None]

    @property
    def superseded(self) -> int:
        """How many frames ended because a newer one came."""
        return sum((final["error"] or {}).get("code") == "superseded" for final in self.frames.values())

    @property
    def longest_frame_s(self) -> float:
        """The longest time that a frame took, from its start to its final."""
        return float(max(final["timing"]["total_s"] - final["timing"]["queued_s"] for final in self.answered))

    @property
    def longest_text_wait_s(self) -> float:
        """The longest that a text job waited for its start."""
        return float(max(final["timing"]["queued_s"] for final in self.texts.values()))

    @property
    def oldest_look_s(self) -> float:
        """The age of the oldest frame when it was looked at."""
        return float(max(final["timing"]["queued_s"] for final in self.answered))

    @property
    def growth(self) -> tuple[float, float]:
        """Largest memory of the second half over that of the first, of the agent and of its worker.

        Largest against largest, since the worker's rises and falls with each picture.
        """
        half = len(self.memory) // 2
        (agent, worker), (agent_before, worker_before) = (
            map(max, zip(*part, strict=True)) for part in (self.memory[half:], self.memory[:half])
        )
        return agent / agent_before, worker / worker_before


async def play(pictures: Sequence[bytes], seconds: float, fps: float, box: Box, port: int) -> Played:
    """Play JPEG files at a running box from two cameras, asking it something between; return when all is answered."""
    played = Played()
    async with Device(port, "cams") as cameras, Device(port, "asker") as asker, asyncio.TaskGroup() as playing:
        text = playing.create_task(_ask(asker, played))
        sample = playing.create_task(_sample(box, cameras, played))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while loop.time() < begun + seconds:
            for camera in CAMERAS:
                payload = pictures[played.sent % len(pictures)]
                cameras.publish(f"image/{camera}", payload)
                played.sent += 1
            await asyncio.sleep(max(0.0, begun + played.sent / len(CAMERAS) / fps - loop.time()))
        text.cancel()
        sample.cancel()
        await cameras.until(lambda: _count(cameras) == played.sent)
        await asker.until(lambda: _count(asker) == len(played.texts))
        played.frames, played.texts = _finals(cameras), _finals(asker)
    return played


def drawings(count: int) -> list[bytes]:
    """Draw pictures, as JPEG files."""
    files = []
    for number in range(count):
        file = BytesIO()
        draw(Random(number), (1280, 720)).image.save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    return files


def _count(device: Device) -> int:
    return sum(heard.topic.endswith("/final") for heard in device.heard)


def _finals(device: Device) -> dict[str, dict[str, Any]]:
    return {heard.body["id"]: heard.body for heard in device.heard if heard.topic.endswith("/final")}


async def _ask(device: Device, played: Played) -> None:
    while True:
        job_id = secrets.token_hex(4)
        played.texts[job_id] = {}
        device.publish("text", {"id": job_id, "prompt": "What is in the picture?", "max_tokens": 16})
        await asyncio.sleep(_TEXT_EVERY_S)


async def _sample(box: Box, cameras: Device, played: Played) -> None:
    while True:
        await asyncio.sleep(_SAMPLE_S)
        if _count(cameras) >= _WARM_UP:
            played.memory.append((resident_bytes(box.pid), sum(map(resident_bytes, box.workers))))


async def _main(arguments: argparse.Namespace) -> int:
    store = Path(os.environ.get("EDGE_SLM_TEST_MODELS", models_dir()))
    models = {"text": None, "vision": str(pull("shapes-vision", store))}
    if arguments.text:
        models["text"] = str(pull("smollm2-135m", store))
    found = sorted(arguments.folder.glob("*.jp*g")) if arguments.folder else []
    pictures = [file.read_bytes() for file in found] or drawings(50)
    with tempfile.TemporaryDirectory() as directory, Broker(Path(directory)) as broker:
        box = Box(Path(directory), broker.port, Path(), models=models, cameras=CAMERAS)
        async with box:
            for _ in range(arguments.text + 1):
                await box.logged("engine.model_loaded")
            played = await play(pictures, arguments.seconds, arguments.fps, box, broker.port)
    agent, worker = played.growth
    print(
        f"{len(pictures)} pictures of {sum(map(len, pictures)) // len(pictures) // 1000} KB; {played.sent} frames sent"
    )
    print(f"{len(played.answered)} looked at, {played.superseded} superseded, {len(played.frames)} answered")
    print(f"{len(played.texts)} text jobs; the longest wait {played.longest_text_wait_s:.3f} s")
    print(f"the longest frame took {played.longest_frame_s:.3f} s; the oldest was {played.oldest_look_s:.3f} s old")
    print(f"memory after {_WARM_UP} frames, second half against first: agent x {agent:.3f}, inference x {worker:.3f}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/soak-cameras", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="with JPEG files; by default drawings are played")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--fps", type=float, default=30, help="of each of the two cameras")
    parser.add_argument("--text", action="store_true", help="a text model of its own for the text jobs")
    raise SystemExit(asyncio.run(_main(parser.parse_args())))
