"""An examination of ``shapes-vision`` over MQTT: what it sees in pictures that it was not trained on.

``scripts/examine-shapes-vision`` makes the table in docs/vision.md; the suite looks at fewer pictures.
"""

import argparse
import asyncio
import base64
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from pathlib import Path
from random import Random
from typing import Literal

from agent import logs
from agent.contract.jobs import Detail
from agent.demo import models_dir
from agent.engines.local import LocalEngine
from agent.engines.spec import Rung, Spec
from agent.models import pull
from agent.models.shapes import Drawn, answer, draw
from agent.service import Service
from agent.settings import Settings
from agent.spool import Spool
from tests.brokers import Broker
from tests.devices import Device

Mistake = Literal["channels", "crops", "pictures"]

DETAILS: tuple[Detail, ...] = ("low", "auto", "high")
# Training draws from other seeds.
_HELD_OUT = 1_000_000
# Of two that are shown at a time, so that they fit the window at high detail, too.
_PAIR_SIZE = (640, 480)
_UNDER_WAY = 8
_ids = count()


@dataclass
class Marks:
    """How many pictures were described, and how many of them rightly."""

    pictures: int = 0
    right: int = 0

    @property
    def share(self) -> float:
        """The part that was right."""
        return self.right / self.pictures


@asynccontextmanager
async def seeing(directory: Path, port: int, folder: Path, mistake: Mistake | None = None) -> AsyncIterator[None]:
    """Run a box in this process, with the model in a process of its own, which may make a mistake."""
    settings = Settings.model_validate(
        {"device": {"id": "box1"}, "mqtt": {"port": port}, "state_dir": directory / f"state-{next(_ids)}"}
    )
    command = None if mistake is None else (sys.executable, "-m", "tests.acceptance.broken_worker", mistake)
    engine = LocalEngine(Spec(folder.name, (Rung("cpu", folder),), 1, None, 64), command=command)
    stop = asyncio.Event()
    spool = await Spool.open(settings.spool_file)
    service = Service(settings, spool, {"vision": engine})
    serving = asyncio.create_task(engine.serve())
    running = asyncio.create_task(service.run(stop))
    try:
        while engine.health.state != "ready" or not service.bus.connected:  # noqa: ASYNC110  two things at once
            await asyncio.sleep(0.01)
        yield
    finally:
        stop.set()
        await running
        serving.cancel()
        await asyncio.wait([serving])
        await spool.close()


async def examine(device: Device, pictures: int, detail: Detail, *, pairs: bool = False) -> Marks:
    """Have so many held-out pictures described, one or two at a time, and mark the answers."""
    marks, room = Marks(), asyncio.Semaphore(_UNDER_WAY)

    async def ask(drawn: list[Drawn]) -> None:
        async with room:
            job = f"p{next(_ids)}"
            images = [_jpeg(each) for each in drawn]
            device.publish(
                "image/exam", {"id": job, "prompt": "What is in the picture?", "images": images, "detail": detail}
            )
            final = await device.final(job)
        marks.pictures += len(drawn)
        marks.right += len(drawn) * (final["text"] == answer([each.caption for each in drawn]))

    async with asyncio.TaskGroup() as asking:
        for drawn in _jobs(pictures, pairs=pairs):
            asking.create_task(ask(drawn))
    return marks


def _jobs(pictures: int, *, pairs: bool) -> Iterator[list[Drawn]]:
    for number in count():
        if pictures <= 0:
            return
        random = Random(_HELD_OUT + number)
        drawn = [draw(random, _PAIR_SIZE), draw(random, _PAIR_SIZE)] if pairs else [draw(random)]
        pictures -= len(drawn)
        yield drawn


def _jpeg(drawn: Drawn) -> str:
    file = BytesIO()
    drawn.image.save(file, "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()


async def _main(pictures: int, fewer: int, store: Path) -> int:
    rows: list[tuple[str, Mistake | None, int, bool]] = [
        ("as it is", None, pictures, False),
        ("channels swapped", "channels", fewer, False),
        ("crops shuffled", "crops", fewer, False),
        ("two at a time", None, fewer, True),
        ("two at a time, exchanged", "pictures", fewer, True),
    ]
    logs.configure("warning")
    folder = await asyncio.to_thread(pull, "shapes-vision", store)
    print(f"| | pictures | {' | '.join(DETAILS)} |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name, Broker(Path(name)) as broker:
        for title, mistake, number, pairs in rows:
            async with seeing(Path(name), broker.port, folder, mistake), Device(broker.port) as device:
                shares = [(await examine(device, number, each, pairs=pairs)).share for each in DETAILS]
            print(f"| {title} | {number} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/examine-shapes-vision", description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--fewer", type=int, default=60, help="of pictures, for all rows but the first")
    parser.add_argument("--store", type=Path, default=models_dir())
    given = parser.parse_args()
    raise SystemExit(asyncio.run(_main(given.pictures, given.fewer, given.store)))
