"""What a fleet goes through, and what is measured of it."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.boxes import edge_slm
from tests.fleet.running import BROKEN, POOL, Clocked, Fleet

# Short answers: the boxes of a test share two cores.
_JOB = {"prompt": "Count from one to ten.", "max_tokens": 8}


@dataclass(frozen=True)
class Shared:
    """How a pool has shared its jobs.

    Attributes:
        finals: of each job, all that came.
        seconds: from the first publish to each job's final.
        killed_s: when a member was killed.
        back_s: when it was started again.

    """

    finals: dict[str, list[dict[str, Any]]]
    seconds: dict[str, float]
    killed_s: float
    back_s: float

    @property
    def nodes(self) -> Counter[str]:
        """How many jobs each member has answered."""
        return Counter(finals[0]["node"] for finals in self.finals.values())

    def outlived(self, node: str) -> int:
        """How many of a member's jobs it had taken on, and not answered, when it was killed."""
        return sum(finals[0]["node"] == node and finals[0]["attempt"] > 1 for finals in self.finals.values())


async def share(fleet: Fleet, *, jobs: int, victim: str, kill_after: int, away_s: float) -> Shared:
    """Have a pool share jobs, and one of its members be killed once so many have an answer, and come back."""
    names = [f"p{number}" for number in range(jobs)]
    async with Clocked(fleet.broker.port, "dev7", POOL) as device:
        begun = time.monotonic()
        for name in names:
            device.publish("text", {"id": name, **_JOB})
        topics = {f"slm/{POOL}/res/dev7/{name}/final": name for name in names}
        await device.until(lambda: len(device.at.keys() & topics.keys()) >= kill_after)
        await fleet.boxes[victim].kill()
        killed_s = time.monotonic() - begun
        await asyncio.sleep(away_s)  # how long it is away is what the others' finals are compared with
        back_s = time.monotonic() - begun
        fleet.boxes[victim].start()
        await fleet.boxes[victim].logged("mqtt.connected", 2)
        for name in names:
            await device.final(name)
        finals = {name: device.of(name, "final") for name in names}
        seconds = {name: device.at[topic] - begun for topic, name in topics.items()}
        return Shared(finals, seconds, killed_s, back_s)


@dataclass(frozen=True)
class Changed:
    """How a change came to a group.

    Attributes:
        code: of ``edge-slm fleet push``.
        results: what it printed, a device each.
        finals: of the jobs that were in flight meanwhile, by device and job.

    """

    code: int
    results: list[dict[str, Any]]
    finals: dict[str, dict[str, list[dict[str, Any]]]]


async def push(fleet: Fleet, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run ``edge-slm fleet push`` on the fleet; return its exit code, its results and what it complained of."""
    ended = await edge_slm("fleet", "push", fleet.folder, "--json", *arguments)
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr


async def change(fleet: Fleet, group: list[str], *arguments: str, jobs: int) -> Changed:
    """Push a change to a group whose boxes have jobs to do, as many each."""
    names = [f"c{number}" for number in range(jobs)]
    finals = {}
    devices = [await Clocked(fleet.broker.port, f"asks-{node}", node).__aenter__() for node in group]
    try:
        for name in names:
            for device in devices:
                device.publish("text", {"id": name, **_JOB})
        for device in devices:
            await device.state(names[0], "started")
        code, results, _ = await push(fleet, *arguments)
        for node, device in zip(group, devices, strict=True):
            for name in names:
                await device.final(name)
            finals[node] = {name: device.of(name, "final") for name in names}
    finally:
        for device in devices:
            await device.__aexit__(None, None, None)
    return Changed(code, results, finals)


BAD = {
    "a typo": b"engine: {slotz: 2}",
    "a key that a box keeps to itself": b"mqtt: {host: broker.elsewhere}",
    "a model that is not installed": b"models: {text: phi-4-mini}",
    "a model that cannot be loaded": f"models: {{text: {BROKEN}}}".encode(),
}


@dataclass(frozen=True)
class Harm:
    """What a bad change did to a box: what it reported, when, and how the jobs ended that met it."""

    report: dict[str, Any]
    seconds: float
    finals: list[dict[str, Any]]

    @property
    def ends(self) -> set[str]:
        """The states in which those jobs ended."""
        return {final["state"] for final in self.finals}


async def harm(fleet: Fleet, node: str) -> dict[str, Harm]:
    """Tell a box everything that is bad for it, and ask it something before each and after."""
    harms = {}
    async with Clocked(fleet.broker.port, f"asks-{node}", node) as device:
        for number, (what, payload) in enumerate(BAD.items()):
            names = [f"{when}{number}" for when in ("before", "beside", "after")]
            for name in names[:2]:
                device.publish("text", {"id": name, **_JOB})
            report, seconds = await fleet.tell(node, payload)
            device.publish("text", {"id": names[2], **_JOB})
            harms[what] = Harm(report, seconds, [await device.final(name) for name in names])
    return harms


async def killed_on_trial(fleet: Fleet, node: str) -> Harm:
    """Kill a box while it tries a change, start it again, and hear what it reports of the change then."""
    payload = b"engine: {slots: 3}"
    box = fleet.boxes[node]
    tried = sum(each["event"] == "configuration.changing" for each in box.events)
    fleet.operator.post(f"slm/{node}/config/desired", payload)
    await box.logged("configuration.changing", tried + 1)
    await box.kill()
    begun = time.monotonic()
    box.start()
    await box.logged("mqtt.connected", sum(each["event"] == "mqtt.connected" for each in box.events) + 1)
    report, seconds = await fleet.reported(node, payload), time.monotonic() - begun
    async with Clocked(fleet.broker.port, f"asks-{node}", node) as device:
        device.publish("text", {"id": "killed", **_JOB})
        return Harm(report, seconds, [await device.final("killed")])
