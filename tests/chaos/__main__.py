"""The promises under fire: ``scripts/chaos`` runs this for as long as you like; the suite, for half a minute."""

import argparse
import asyncio
import os
import secrets
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

from agent.demo import models_dir
from agent.models import pull
from tests.chaos import plan
from tests.chaos.checking import Violation, check
from tests.chaos.evidence import keep
from tests.chaos.history import History
from tests.chaos.plan import Ask, Cancel, Repeat, Step
from tests.chaos.running import own_disk, run


def _table(steps: list[Step], history: History, violations: list[Violation]) -> str:
    asks = [step for step in steps if isinstance(step, Ask)]
    finals = {told.key: told.body for told in history.heard if told.kind == "final"}
    ends = Counter(_end(finals[ask.key]) for ask in asks if ask.key in finals)
    again = Counter(finals[ask.key]["attempt"] for ask in asks if ask.key in finals)
    rows: list[tuple[str, object]] = [
        ("jobs", len(asks)),
        *((f"  {form}", sum(ask.form == form for ask in asks)) for form in ("text", "picture", "frame")),
        ("requests acknowledged by the agent", len(history.acknowledged)),
        ("known duplicates", sum(isinstance(step, Repeat) for step in steps)),
        ("cancels", sum(isinstance(step, Cancel) for step in steps)),
        ("faults", history.struck.total()),
        *((f"  {kind}", count) for kind, count in sorted(history.struck.items())),
        ("workers replaced for their silence", sum(event["event"] == "engine.worker_hung" for event in history.log)),
        ("jobs under way when one struck, median", median(history.under_way or [0])),
        ("finals", sum(ends.values())),
        *((f"  {end}", count) for end, count in ends.most_common()),
        *((f"  of attempt {attempt}", count) for attempt, count in sorted(again.items())),
        ("finals compared with those in the agent's spool", len(history.stored)),
        ("texts compared with what is said when all is quiet", _recited(history)),
        ("repeats needed", len(history.repeated)),
        *((f"  {lost}", count) for lost, count in Counter(lost.by for lost in history.repeated.values()).items()),
        ("violations", len(violations)),
    ]
    return "\n".join(f"{name:<52} {value}" for name, value in rows)


def _recited(history: History) -> int:
    again = set(history.recited.values())
    return len({told.key for told in history.heard if told.key in again and told.body.get("state") == "SUCCEEDED"})


def _end(final: dict[str, object]) -> str:
    error = final["error"]
    return str(final["state"]) if not isinstance(error, dict) else f"{final['state']} {error['code']}"


async def _main(arguments: argparse.Namespace) -> int:
    store = Path(os.environ.get("EDGE_SLM_TEST_MODELS", models_dir()))
    models = {"text": pull("smollm2-135m", store), "vision": pull("shapes-vision", store)}
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="edge-slm-chaos-"))
    print(f"seed {arguments.seed}: the same seed has the same plan; logs are in {folder}", flush=True)
    begun = time.monotonic()

    def progress(line: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {line}", flush=True)

    with own_disk(folder) as disk:
        if disk is None:
            progress("no disk can be mounted here: other faults take the place of a full one")
        steps = plan.make(arguments.seed, arguments.jobs, arguments.faults, disk=disk is not None)
        if arguments.plan:
            print(*steps, sep="\n")
        history = await run(steps, folder, models, disk, progress)
        violations = check(history)
        if violations:
            keep(history, folder)
    print(_table(steps, history, violations))
    for violation in violations:
        print(violation)
    return 1 if violations else 0


def _new_folder(name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise argparse.ArgumentTypeError(f"{folder} is not empty: name a new folder")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{folder} cannot be used ({error.strerror}): name a new folder") from error
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--plan", action="store_true", help="print every step of the plan")
    parser.add_argument("--keep", type=_new_folder, help="a new folder for logs and, upon a violation, all evidence")
    raise SystemExit(asyncio.run(_main(parser.parse_args())))
