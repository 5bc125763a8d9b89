"""An hour of steady load, and whether the box's memory and descriptors stay as they are: ``scripts/soak``."""

import argparse
import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from agent.demo import models_dir
from agent.models import pull
from tests.soak.soaking import Soaked, soak
from tests.soak.verdict import Sample, last_half

_COLUMNS: dict[str, Callable[[Sample], float]] = {
    "resident MB": lambda sample: sample.resident / 1e6,
    "anonymous MB": lambda sample: sample.anonymous / 1e6,
    "descriptors": lambda sample: sample.descriptors,
    "threads": lambda sample: sample.threads,
}


def table(soaked: Soaked) -> Iterator[str]:
    """Yield what was seen, line by line."""
    yield f"{'':32} {'first half':>29} {'last half':>29}"
    yield f"{'':32}" + f" {'least':>9} {'median':>9} {'most':>9}" * 2
    for process, samples in soaked.samples.items():
        late = last_half(samples)
        for title, value in _COLUMNS.items():
            line = f"{process:16}{title:16}"
            for half in (samples[: -len(late)] or late, late):
                values = [value(each) for each in half]
                line += "".join(f" {each:9.1f}" for each in (min(values), median(values), max(values)))
            yield line
    yield "In the last half:"
    for process, verdict in soaked.verdicts.items():
        yield f"{process:16}its most memory moves by {verdict.growth:+.2%}, and lies {verdict.spread:.2%} apart"
    outcomes = ", ".join(f"{count} {code}" for code, count in sorted(soaked.outcomes.items()))
    yield f"{sum(soaked.outcomes.values())} jobs ({outcomes}), {len(soaked.lost)} lost, {len(soaked.changed)} changed"
    yield f"NOT WELL: {'; '.join(soaked.faults)}" if soaked.faults else "well: memory flat, descriptors constant"


def _say(line: str) -> None:
    print(line, flush=True)


def _main(arguments: argparse.Namespace) -> int:
    store = Path(os.environ.get("EDGE_SLM_TEST_MODELS", models_dir()))
    text, vision = pull("smollm2-135m", store), pull("shapes-vision", store)
    print(f"seed {arguments.seed}; samples go to {arguments.csv}", flush=True)
    with arguments.csv.open("w", encoding="ascii", newline="") as out:
        soaking = soak(
            *(text, vision), seconds=60 * arguments.minutes, seed=arguments.seed, sample_s=1, out=out, say=_say
        )
        soaked = asyncio.run(soaking)
    print(*table(soaked), sep="\n")
    return 1 if soaked.faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long; by default an hour")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of what is asked")
    parser.add_argument("--csv", type=Path, default=Path("soak.csv"), help="where the samples go")
    raise SystemExit(_main(parser.parse_args()))
