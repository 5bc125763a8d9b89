"""A cloud that flaps, for as long as you like: ``scripts/flapping``. The suite has it for some seconds."""

import argparse
import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from agent.demo import models_dir
from agent.models import pull
from agent.standin import Fault
from tests.flapping.judging import check
from tests.flapping.running import run
from tests.flapping.table import ends, table


async def _main(arguments: argparse.Namespace) -> int:
    model = pull("smollm2-135m", Path(os.environ.get("EDGE_SLM_TEST_MODELS", models_dir())))
    folder = Path(tempfile.mkdtemp(prefix="edge-slm-flapping-"))
    print(f"seed {arguments.seed}; logs are in {folder}", flush=True)
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {line}", flush=True)

    history = await run(
        folder,
        model,
        faults=arguments.faults,
        turn_s=arguments.turn,
        random_s=60 * arguments.minutes,
        seed=arguments.seed,
        say=say,
    )
    violations = check(history)
    print(*table(history), "", *ends(history), "", *violations, f"{len(violations)} violations", sep="\n")
    return 1 if violations else 0


def _faults(names: str) -> Sequence[Fault]:
    try:
        return [Fault[name] for name in names.split(",") if name]
    except KeyError as error:
        known = ", ".join(fault.name for fault in Fault)
        raise argparse.ArgumentTypeError(f"there is no fault {error}: name some of {known}") from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/flapping", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long there are all faults at random")
    parser.add_argument("--turn", type=float, default=3, metavar="S", help="how long each fault has its turn before")
    parser.add_argument("--faults", type=_faults, default=list(Fault), metavar="A,B", help="those that have a turn")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of what is random")
    raise SystemExit(asyncio.run(_main(parser.parse_args())))
