"""The devices that ask, more than the box can do by itself."""

import asyncio
import time
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Any

from agent.contract.jobs import Key
from tests.chaos.history import Told
from tests.devices import Device, Heard
from tests.flapping.history import Ask, History

# How many of a hundred jobs ask for what.
_KINDS: tuple[tuple[int, dict[str, Any]], ...] = (
    (40, {}),
    (25, {"placement": "prefer_cloud"}),
    (15, {"placement": "cloud_only"}),
    (10, {"placement": "local_only"}),
    (10, {"private": True, "placement": "prefer_cloud"}),
)
_WORDS = ("cows", "hens", "the barn", "rain", "a gate", "milk", "two dogs", "the road", "hay", "an old tractor")


class Asker(Device):
    """A device that writes down all that it asks and hears."""

    def __init__(self, port: int, name: str, version: str, history: History) -> None:
        super().__init__(port, name, version, keep=True)
        self._history = history
        self._unanswered: dict[str, asyncio.Event] = {}

    def _take(self, heard: Heard) -> None:
        *_, job_id, kind = heard.topic.split("/")
        match kind:
            case "state" | "chunk" | "final":
                self._history.heard.append(Told(Key(self._name, job_id), kind, heard.payload, time.time()))
        if kind == "final" and job_id in self._unanswered:
            self._unanswered[job_id].set()

    def ask(self, job_id: str, fields: dict[str, Any], phase: str) -> None:
        """Ask for a job."""
        self._unanswered[job_id] = asyncio.Event()
        key = Key(self._name, job_id)
        self._history.asked[key] = Ask(key, fields, phase, time.time())
        self.publish("text", {"id": job_id, **fields})

    async def settle(self) -> None:
        """Wait until every job has its final."""
        for answered in self._unanswered.values():
            await answered.wait()
        self._unanswered.clear()


def requests(random: Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield jobs for ever: the id, by which the stand-in knows them, and the other fields."""
    weights, kinds = zip(*_KINDS, strict=True)
    for number in count(1):
        job_id = f"job{number:05}-{random.getrandbits(32):08x}"
        (kind,) = random.choices(kinds, weights)
        fields = {"prompt": f"{job_id}: tell me about {random.choice(_WORDS)}.", "max_tokens": random.randint(8, 48)}
        if random.random() < 0.95:
            fields["deadline_s"] = round(random.uniform(1.5, 5.0), 2)
        yield job_id, fields | kind


async def arrive(askers: list[Asker], random: Random, rate: float, phase: str) -> None:
    """Ask for ever, at random moments, whether there are answers or not.

    Args:
        askers: one of whom asks each time.
        random: of when and what.
        rate: how many jobs a second.
        phase: the part of the run that it is.

    """
    due = time.monotonic()
    for job_id, fields in requests(random):
        due += random.expovariate(rate)
        await asyncio.sleep(due - time.monotonic())
        random.choice(askers).ask(job_id, fields, phase)
