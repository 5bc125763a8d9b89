"""Three boxes on one broker: a pool whose member is killed, a change to a group, and bad ones: ``scripts/fleet``."""

import argparse
import asyncio
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent.demo import models_dir
from agent.models import pull
from tests.brokers import Broker
from tests.fleet.running import DEVICES, Fleet
from tests.fleet.stories import Changed, Harm, Shared, change, harm, killed_on_trial, share

_VICTIM = "box2"


async def _main(arguments: argparse.Namespace) -> int:
    model = pull("smollm2-135m", Path(os.environ.get("EDGE_SLM_TEST_MODELS", models_dir())))
    with tempfile.TemporaryDirectory(prefix="edge-slm-fleet-") as name, Broker(Path(name)) as broker:
        async with Fleet(Path(name), broker, model) as fleet:
            jobs = arguments.jobs
            shared = await share(fleet, jobs=jobs, victim=_VICTIM, kill_after=jobs // 6, away_s=arguments.away)
            _say(_pool(shared))
            changed = await change(fleet, [*DEVICES], "--group", "lab", "--set", "engine.slots=2", jobs=jobs // 15)
            _say(_change(changed))
            harms = await harm(fleet, "box1") | {"killed while it tried": await killed_on_trial(fleet, "box3")}
            _say(_harms(harms))
    problems = [*_problems(shared, changed, harms)]
    _say(iter([*problems, f"{len(problems)} problems"]))
    return 1 if problems else 0


def _say(lines: Iterator[str]) -> None:
    print(*lines, "", sep="\n", flush=True)  # noqa: T201  a script prints its tables


def _pool(shared: Shared) -> Iterator[str]:
    away = f"{_VICTIM} killed at {shared.killed_s:.1f} s, started again at {shared.back_s:.1f} s"
    yield f"{len(shared.finals)} jobs for the pool at once; {away}"
    yield "| box | jobs | of these taken on and unanswered at the kill | last answer | median answer |"
    yield "|---|---|---|---|---|"
    for node, count in sorted(shared.nodes.items()):
        mine = [shared.seconds[name] for name, finals in shared.finals.items() if finals[0]["node"] == node]
        middle = statistics.median(mine)
        yield f"| {node} | {count} | {shared.outlived(node)} | {max(mine):.1f} s | {middle:.1f} s |"
    yield f"answered twice: {sum(len(finals) > 1 for finals in shared.finals.values())}"


def _change(changed: Changed) -> Iterator[str]:
    jobs = sum(map(len, changed.finals.values()))
    yield f"a change to a group whose boxes have {jobs} jobs in flight"
    yield "| box | became | seconds |"
    yield "|---|---|---|"
    for each in changed.results:
        yield f"| {each['device']} | {each['state']} | {each['seconds']:.1f} |"


def _harms(harms: dict[str, Harm]) -> Iterator[str]:
    yield "| a bad change | became | seconds | jobs beside it | because |"
    yield "|---|---|---|---|---|"
    for what, each in harms.items():
        told = each.report["detail"] or each.report["refused"][0]["message"]
        yield f"| {what} | {each.report['state']} | {each.seconds:.2f} | {', '.join(each.ends)} | {told} |"


def _problems(shared: Shared, changed: Changed, harms: dict[str, Harm]) -> Iterator[str]:
    for name, finals in shared.finals.items():
        if finals[0]["state"] != "SUCCEEDED" or any(each != finals[0] for each in finals):
            yield f"the pool's job {name} ended as {[each['state'] for each in finals]}"
    if changed.code:
        yield f"the push ended with {changed.code}"
    for node, jobs in changed.finals.items():
        for name, finals in jobs.items():
            if finals[0]["state"] != "SUCCEEDED":
                yield f"the job {name} of {node} ended as {finals[0]['state']} during the change"
    for what, each in harms.items():
        if each.report["state"] == "applied" or each.ends != {"SUCCEEDED"}:
            yield f"{what}: {each.report['state']}, and jobs beside it {each.ends}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/fleet", description=__doc__)
    parser.add_argument("--jobs", type=int, default=300, help="for the pool")
    parser.add_argument("--away", type=float, default=20, metavar="S", help="how long the killed member stays away")
    raise SystemExit(asyncio.run(_main(parser.parse_args())))
