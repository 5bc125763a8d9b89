"""A steady load for a box: text jobs of every sort from several clients, and a camera."""

import asyncio
import secrets
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from hashlib import sha256
from itertools import cycle
from random import Random
from typing import Any

from tests.devices import Device, Heard

CAMERA = "porch"
CAMERAS = {CAMERA: {"prompt": "What is in the picture?", "detail": "low", "max_tokens": 32}}
# Each waits for its answer before it asks again: the box is never idle, and never has more than it can bear.
_CLIENTS = {"north": "5", "east": "3.1.1", "south": "5", "west": "3.1.1"}
_WORDS = [
    *("cows", "cars", "birds", "people", "counts", "passes", "stands", "waits", "before", "after"),
    *("the", "box", "in", "barn", "and", "then", "says", "how", "many", "today"),
]
_SCHEMA = {
    "type": "object",
    "properties": {"animal": {"enum": ["cow", "hen", "cat"]}, "count": {"type": "integer", "maximum": 99}},
    "required": ["animal", "count"],
}
_FRAMES_PER_S = 3.0
# How many different jobs each client has: a minute's worth.
_ROUND = 40
# For what is still under way at the end.
_LAST_ANSWERS_S = 60.0


class Caller(Device):
    """A device that keeps what its finals were, and nothing of its words: an hour of those would be its own leak."""

    def __init__(self, port: int, name: str, version: str) -> None:
        super().__init__(port, name, version, keep=True)
        self.outcomes: Counter[str] = Counter()
        self._finals: defaultdict[str, set[bytes]] = defaultdict(set)
        self._unanswered: dict[str, asyncio.Event] = {}

    def _take(self, heard: Heard) -> None:
        if not heard.topic.endswith("/final"):
            return
        body = heard.body
        job_id = body["id"]
        if job_id not in self._finals:
            self.outcomes[body["error"]["code"] if body["error"] else "ok"] += 1
        self._finals[job_id].add(sha256(heard.payload).digest())
        self._unanswered[job_id].set()

    @property
    def lost(self) -> list[str]:
        """The jobs that have no final."""
        return [job_id for job_id in self._unanswered if job_id not in self._finals]

    @property
    def changed(self) -> list[str]:
        """The jobs that have two different finals."""
        return [job_id for job_id, payloads in self._finals.items() if len(payloads) > 1]

    def asks(self) -> str:
        """Make the id of a new job."""
        job_id = secrets.token_hex(8)
        self._unanswered[job_id] = asyncio.Event()
        return job_id

    async def answered(self, job_id: str) -> None:
        """Wait for the next final of a job."""
        await self._unanswered[job_id].wait()
        self._unanswered[job_id].clear()

    async def settle(self) -> None:
        """Wait until every job has its final, or so long that it will have none."""
        with_none = [self._unanswered[job_id].wait() for job_id in self.lost]
        if with_none:
            await asyncio.wait(map(asyncio.ensure_future, with_none), timeout=_LAST_ANSWERS_S)


class Load:
    """The clients of a box, from its start to its last answer.

    Args:
        port: of the broker.
        seed: of what they ask.
        pictures: what the camera sees, as JPEG files.

    """

    def __init__(self, port: int, seed: int, pictures: Sequence[bytes]) -> None:
        self._seed = seed
        self._pictures = pictures
        self.askers = [Caller(port, name, version) for name, version in _CLIENTS.items()]
        self.camera = Caller(port, "cams", "5")

    @property
    def callers(self) -> list[Caller]:
        """All of them."""
        return [*self.askers, self.camera]

    @property
    def outcomes(self) -> Counter[str]:
        """How the jobs ended, by their error codes."""
        return sum((caller.outcomes for caller in self.callers), Counter())

    async def run(self, seconds: float) -> None:
        """Ask for so long, and wait for the answers."""
        async with AsyncExitStack() as connected:
            for caller in self.callers:
                await connected.enter_async_context(caller)
            try:
                async with asyncio.timeout(seconds), asyncio.TaskGroup() as asking:
                    asking.create_task(self._film())
                    for number, asker in enumerate(self.askers):
                        asking.create_task(_ask(asker, Random(self._seed + number)))
            except TimeoutError:
                pass
            await asyncio.gather(*(caller.settle() for caller in self.callers))

    async def _film(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number in range(1 << 62):
            frame = self._pictures[number % len(self._pictures)]
            # By its correlation data a frame has an id that we know, and can be missed.
            self.camera.publish(f"image/{CAMERA}", frame, CorrelationData=self.camera.asks().encode())
            await asyncio.sleep(begun + (number + 1) / _FRAMES_PER_S - loop.time())


async def _ask(asker: Caller, random: Random) -> None:
    """Ask a round of things, one after another, and again the same round: what changes then is the box's doing."""
    round_ = [(_kind(random), _words(random), random.randint(8, 120)) for _ in range(_ROUND)]
    for kind, words, max_tokens in cycle(round_):
        job_id = asker.asks()
        # Its id is before its words, or the box would remember having read them.
        job: dict[str, Any] = {"id": job_id, "prompt": f"{job_id} {words}", "max_tokens": max_tokens}
        match kind:
            case "schema":
                job["response_format"] = {"type": "json_schema", "json_schema": {"name": "seen", "schema": _SCHEMA}}
            case "bad":
                job["colour"] = "blue"
        asker.publish("text", job)
        if kind == "repeated":
            asker.publish("text", job)
            await asker.answered(job_id)
            asker.publish("text", job)
        elif kind == "canceled":
            await asyncio.sleep(random.random())
            asker.publish("cancel", job_id)
        await asker.answered(job_id)


def _kind(random: Random) -> str:
    return random.choices(["plain", "schema", "canceled", "repeated", "bad"], [70, 8, 9, 9, 4])[0]


def _words(random: Random) -> str:
    """Return one to two hundred words, mostly few."""
    return " ".join(random.choices(_WORDS, k=round(200 ** random.random())))
