"""The devices that ask: each publishes its part of the plan, and writes down what it hears."""

import asyncio
import base64
import time
from collections import defaultdict
from contextlib import suppress
from functools import cache
from random import Random

from agent.contract.jobs import Key
from agent.models.shapes import draw
from tests.chaos.history import History
from tests.chaos.plan import Ask
from tests.contract.pictures import encoded
from tests.devices import Device

_MARKER_S = 20.0


class Client:
    """A device with a persistent session, directly at the broker.

    Args:
        device: its connection.
        name: its ``{client}`` level.
        history: where everything that it hears is written down.

    """

    def __init__(self, device: Device, name: str, history: History) -> None:
        self._device = device
        self._name = name
        self._history = history
        self._finals: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._markers = 0

    async def listen(self) -> None:
        """Write down what is heard, for ever."""
        count = 0
        while True:
            await self._device.until(lambda: len(self._device.heard) > count)  # noqa: B023  awaited here
            for heard in self._device.heard[count:]:
                count += 1
                match heard.topic.split("/"):
                    case [*_, job_id, ("state" | "chunk" | "final") as kind]:
                        self._history.told(Key(self._name, job_id), kind, heard.payload)
                        if kind == "final":
                            self._finals[job_id].set()

    async def final(self, job_id: str) -> None:
        """Wait for a job's final."""
        await self._finals[job_id].wait()

    def answered(self, job_id: str) -> bool:
        """Whether a job's final was heard."""
        return self._finals[job_id].is_set()

    def ask(self, ask: Ask) -> None:
        """Publish a request."""
        self._asked(ask.key)
        if ask.fields.get("temperature"):
            self._history.sampled.add(ask.key)
        job_id = ask.key.id
        match ask.form:
            case "text":
                self._device.publish("text", {"id": job_id, **ask.fields})
            case "picture":
                image = base64.b64encode(_picture(ask.picture)).decode()
                self._device.publish(f"image/{ask.camera}", {"id": job_id, "image": image, **ask.fields})
            case "frame":
                asked = list(ask.fields.items())
                self._device.publish(
                    f"image/{ask.camera}", _picture(ask.picture), CorrelationData=job_id.encode(), UserProperty=asked
                )

    def cancel(self, job_id: str) -> None:
        """Publish a cancel."""
        self._device.publish("cancel", {"id": job_id})

    async def caught_up(self) -> None:
        """Wait until everything that was published before has been handled, and its answers heard.

        The broker and the box keep the order. What the box refuses at once marks that the earlier ones are through.
        Where the broker was just killed, it may lose the marker as anything else, so that it is repeated.
        """
        self._markers += 1
        marker = Key(self._name, f"marker-{self._markers}")
        self._asked(marker)
        while not self.answered(marker.id):
            self._device.publish("text", {"id": marker.id, "prompt": 5})
            with suppress(TimeoutError):
                async with asyncio.timeout(_MARKER_S):
                    await self.final(marker.id)

    def _asked(self, key: Key) -> None:
        self._history.asked.setdefault(key, []).append(time.time())


@cache
def _picture(number: int) -> bytes:
    return encoded(draw(Random(number), (336, 336)).image, "JPEG")
