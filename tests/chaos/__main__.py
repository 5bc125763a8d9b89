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
from tests.chaos.history import History
from tests.chaos.plan import Ask, Cancel, Repeat, Step
from tests.chaos.running import run


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
        ("jobs under way when one struck, median", median(history.under_way or [0])),
        ("finals", sum(ends.values())),
        *((f"  {end}", count) for end, count in ends.most_common()),
        *((f"  of attempt {attempt}", count) for attempt, count in sorted(again.items())),
        ("repeats needed", len(history.repeated)),
        *((f"  {lost}", count) for lost, count in Counter(history.repeated.values()).items()),
        ("violations", len(violations)),
    ]
    return "\n".join(f"{name:<40} {value}" for name, value in rows)


def _end(final: dict[str, object]) -> str:
    error = final["error"]
    return str(final["state"]) if not isinstance(error, dict) else f"{final['state']} {error['code']}"


async def _main(arguments: argparse.Namespace) -> int:
    store = Path(os.environ.get("EDGE_SLM_TEST_MODELS", models_dir()))
    models = {"text": pull("smollm2-135m", store), "vision": pull("shapes-vision", store)}
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="edge-slm-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {arguments.seed}: the same seed has the same plan; logs are in {folder}", flush=True)
    steps = plan.make(arguments.seed, arguments.jobs, arguments.faults)
    if arguments.plan:
        print(*steps, sep="\n")
    begun = time.monotonic()
    history = await run(
        steps, folder, models, lambda line: print(f"{time.monotonic() - begun:7.1f} s  {line}", flush=True)
    )
    violations = check(history)
    print(_table(steps, history, violations))
    for violation in violations:
        print(violation)
    return 1 if violations else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--plan", action="store_true", help="print every step of the plan")
    parser.add_argument("--keep", type=Path, help="a new folder for the logs of the agent and the broker")
    raise SystemExit(asyncio.run(_main(parser.parse_args())))
