"""A fleet of real boxes on one broker: its folder, its processes, and whoever tells them what to be."""

import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.remote import digest
from tests.boxes import Box
from tests.brokers import Broker
from tests.devices import Device, Heard

POOL = "lab"
# All in one group, whose pool deals to them alike: two fast ones and a slow one.
GROUPS: dict[str, dict[str, Any]] = {
    "lab": {"pool": POOL},
    "fast": {"engine": {"slots": 4}},
    "slow": {"engine": {"slots": 1, "threads": 1}},
}
DEVICES = {"box1": ["lab", "fast"], "box2": ["lab", "fast"], "box3": ["lab", "slow"]}
# A model in the boxes' store whose folder looks right, and which cannot be loaded.
BROKEN = "broken"


class Clocked(Device):
    """A device that knows when it first heard something on a topic, in seconds of the monotonic clock."""

    def __init__(self, port: int, name: str, node: str = "box1", also: tuple[str, ...] = ()) -> None:
        super().__init__(port, name, node=node, also=also)
        self.at: dict[str, float] = {}

    def _take(self, heard: Heard) -> None:
        self.at.setdefault(heard.topic, time.monotonic())
        super()._take(heard)

    def post(self, topic: str, payload: bytes) -> None:
        """Publish something retained."""
        self._client.publish(topic, payload, 1, retain=True)


class Fleet:
    """Boxes, started; each is an ``edge-slm run`` with its file in the fleet's folder as its configuration.

    Args:
        directory: where everything goes.
        broker: running.
        model: the folder of the model that all have.
        started: which boxes are.

    Attributes:
        folder: the fleet's.
        boxes: by their ids.
        operator: hears what boxes are, and what they report.

    """

    def __init__(self, directory: Path, broker: Broker, model: Path, started: tuple[str, ...] = tuple(DEVICES)) -> None:
        self._started = started
        self.folder = directory / "fleet"
        self.broker = broker
        store = directory / "models"
        _stock(store, model)
        base = {
            "mqtt": {"port": broker.port},
            "models": {"text": model.name, "dir": str(store)},
            "queue": {"max_jobs": 400, "max_jobs_per_client": 400},
            "log": {"format": "json"},
        }
        self._write("base", base)
        for group, own in GROUPS.items():
            self._write(f"groups/{group}", own)
        self.boxes: dict[str, Box] = {}
        for name, groups in DEVICES.items():
            home = directory / name
            home.mkdir()
            self.boxes[name] = Box(home, broker.port, model)
            self.boxes[name].config = self._write(
                f"devices/{name}", {"device": {"groups": groups}, "state_dir": str(home / "state")}
            )
        self._exits = AsyncExitStack()
        self.operator: Clocked

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as exits:
            self.operator = await exits.enter_async_context(
                Clocked(self.broker.port, "operator", also=("slm/+/config/reported", "slm/+/info", "slm/+/status"))
            )
            for name in self._started:
                self.boxes[name].start()
                exits.push_async_callback(self.boxes[name].kill)
            await self.operator.until(lambda: all(map(self._is_ready, self._started)))
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.aclose()

    async def tell(self, name: str, payload: bytes) -> tuple[dict[str, Any], float]:
        """Publish what a box is to be; return what it reports of it, and after how many seconds."""
        begun = time.monotonic()
        self.operator.post(f"slm/{name}/config/desired", payload)
        return await self.reported(name, payload), time.monotonic() - begun

    async def reported(self, name: str, payload: bytes) -> dict[str, Any]:
        """Return a box's first report of a change."""
        topic, known = f"slm/{name}/config/reported", digest(payload)

        def found() -> list[dict[str, Any]]:
            return [each.body for each in self.operator.heard if each.topic == topic and each.body["hash"] == known]

        await self.operator.until(lambda: bool(found()))
        return found()[0]

    def _is_ready(self, name: str) -> bool:
        said = [each for each in self.operator.heard if each.topic.startswith(f"slm/{name}/")]
        status = [each.payload for each in said if each.topic.endswith("/status")]
        infos = [each.body for each in said if each.topic.endswith("/info")]
        return status[-1:] == [b"online"] and [each["state"] for each in infos[-1:]] == ["ready"]

    def _write(self, name: str, settings: dict[str, Any]) -> Path:
        file = self.folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
        return file


def _stock(store: Path, model: Path) -> None:
    store.mkdir()
    (store / model.name).symlink_to(model)
    broken = store / BROKEN
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).symlink_to(file)
    (broken / "model.onnx").unlink()
    (broken / "model.onnx").write_bytes(b"this is no graph")
