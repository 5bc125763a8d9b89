"""``edge-slm bench --saturate``: more work than the box can do, without a cloud to help it and with one.

Jobs come as a Poisson process, open loop: the next is published when it is due, whatever became of the last. They
are all of one size, in other words each, so that no cache helps: loads are multiples of what the box can do and
deadlines of a lone job's time, and only of equal jobs are these one number each. What mixed sizes do to the
predictions is the forecast's tests' business.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random
from statistics import median

from agent.bench import saturate_cloud, saturate_picture, table
from agent.bench.rig import Rig
from agent.bench.row import Row, heard
from agent.bench.saturate_load import Load, Told, Yardstick, arrivals
from agent.bench.saturate_report import measure, rows
from agent.bench.saturate_report import table as loads_table
from agent.client import Client
from agent.demo.children import while_alive
from agent.settings import Settings

_FACTORS = (0.5, 1.0, 2.0, 4.0)
# Eight loads of this length, and what comes before them, are ten minutes. A box on which a job takes long has so many
# lone jobs' times instead, which at half the capacity bring some twenty jobs.
_LOAD_S, _LOAD_JOBS = 60.0, 40
_CLOSED_S, _CLOSED_JOBS = 20.0, 10
_LONE = 7
# With SmolLM2 on two cores a quarter of a second for the prompt and half a second for the answer.
_WORDS, _MAX_TOKENS = 60, 48
_FILLER = ("a", "boat", "waits", "at", "the", "pier", "while", "its", "crew", "mends", "nets", "and", "talks")


def run(settings: Settings, *, seed: int, as_json: bool, plot: Path | None) -> int:
    """Measure, print the tables and draw the picture.

    Args:
        settings: the model, the slots and the threads are taken from here.
        seed: of the moments at which jobs come.
        as_json: print JSON instead of tables.
        plot: where to draw the picture; None for none.

    Returns:
        the exit code: 0 if every bound holds, 1 otherwise.

    Raises:
        UserError: something that is needed is not installed.

    """
    saturate_cloud.check()
    if plot is not None:
        saturate_picture.check(plot)
    rig = Rig(settings)
    model = rig.text.name  # asked for here, so that a model that is not there is told before anything is measured

    def say(what: str) -> None:
        if not as_json:
            print(f"measuring {what} …", flush=True)

    loads, found = asyncio.run(_measured(rig, seed, say))
    found = rows(loads) + found
    if as_json:
        print(json.dumps({"rows": table.as_dicts(found), "loads": [load.as_dict() for load in loads]}, indent=1))
    else:
        print(f"\n{table.heading([model])}\n\n{table.table(found)}\n\n{measure(loads)}\n\n{loads_table(loads)}")
    if plot is not None:
        saturate_picture.draw(loads, plot)
    return 0 if all(row.holds for row in found) else 1


async def _measured(rig: Rig, seed: int, say: Callable[[str], None]) -> tuple[list[Load], list[Row]]:
    """Put the loads on a box without cloud, and then on one that has it."""
    jobs, loads, found = _jobs(), [], []
    async with saturate_cloud.endpoint() as cloud:
        for has_cloud in (False, True):
            # The queue as it is by default: the rig's own has no end.
            async with (
                rig.box(queue={}, cloud=cloud.settings if has_cloud else {}) as box,
                box.client("bench") as client,
            ):
                children = (box.agent, cloud.child)
                say(f"what a box can do that has {'a' if has_cloud else 'no'} cloud")
                # One process can run 8 % faster than the next: each box has a yardstick of its own.
                yardstick = await while_alive(_yardstick(client, jobs, rig.settings.engine.slots), *children)
                if has_cloud:
                    say("what the agent adds to the way to the cloud")
                    found += await while_alive(saturate_cloud.added(client, cloud, jobs), *children)
                seconds = max(_LOAD_S, _LOAD_JOBS * yardstick.lone_s)
                for factor in _FACTORS:
                    say(f"{factor:g} x")
                    # The same moments for both boxes, but for their capacities.
                    due = arrivals(factor * yardstick.capacity, seconds, Random(f"{seed} {factor}"))  # noqa: S311
                    told = await while_alive(_put(client, jobs, due, yardstick.deadline_s), *children)
                    loads.append(Load(factor, has_cloud, yardstick, seconds, told))
    return loads, found


def _jobs() -> Iterator[dict[str, object]]:
    """Yield jobs of one size; each differs from every other in its first words."""
    for number in count():
        filler = " ".join(_FILLER[(number + position) % len(_FILLER)] for position in range(_WORDS))
        messages = [
            {"role": "system", "content": f"Station {number}: {filler}."},
            {"role": "user", "content": "Write a long story about a lighthouse."},
        ]
        yield {"messages": messages, "max_tokens": _MAX_TOKENS, "temperature": 0}


async def _yardstick(client: Client, jobs: Iterator[dict[str, object]], slots: int) -> Yardstick:
    """Measure a lone job, and a closed loop in which every slot always has a job."""

    async def done() -> float:
        return (await heard(client.ask({**next(jobs), "placement": "local_only"}))).total_s

    async def caller(until: float) -> int:
        ended = 0
        while time.perf_counter() < until:
            await done()
            ended += 1
        return ended

    # The first job in each slot takes longer, for the pages of its KV cache.
    await asyncio.gather(*(done() for _ in range(2 * slots)))
    lone_s = median([await done() for _ in range(_LONE)])
    opened = time.perf_counter()
    closes = opened + max(_CLOSED_S, _CLOSED_JOBS * lone_s)
    ended = sum(await asyncio.gather(*(caller(closes) for _ in range(slots))))
    return Yardstick(lone_s, ended / (time.perf_counter() - opened))


async def _put(
    client: Client, jobs: Iterator[dict[str, object]], due: Sequence[float], deadline_s: float
) -> Sequence[Told]:
    """Put a load on the box, and return what was told of each job when the last has its final."""
    begun, tasks = time.perf_counter(), []
    async with asyncio.TaskGroup() as group:
        for moment in due:
            await asyncio.sleep(moment - (time.perf_counter() - begun))
            job = {**next(jobs), "deadline_s": deadline_s}
            tasks.append(group.create_task(_told(client, job, begun, moment)))
    return [task.result() for task in tasks]


async def _told(client: Client, job: dict[str, object], begun: float, due_s: float) -> Told:
    """Publish a job, listen to its end, and return what was told, in seconds from ``begun``."""
    accepted = started = foretold = None
    async for event in client.ask(job):
        now, body = time.perf_counter() - begun, event.body
        if event.kind == "final":
            return Told(due_s, now, body["state"], body["placement"]["where"], accepted, started, foretold)
        if body.get("state") == "accepted":
            accepted, foretold = now, body["queue"].get("predicted_end_s")
        elif body.get("state") in ("started", "restarted"):
            started = now
    raise RuntimeError("a job had no final")
