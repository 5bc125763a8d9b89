"""An hour of steady load, and whether the box's memory and descriptors stay as they are: ``scripts/soak``."""

import argparse
import asyncio
import csv
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import TextIO

from agent.demo import models_dir
from agent.models import pull
from tests.soak.soaking import Soaked, soak
from tests.soak.verdict import Judgement, Sample, judge

_COLUMNS: dict[str, Callable[[Sample], float]] = {
    "resident MB": lambda sample: sample.resident / 1e6,
    "anonymous MB": lambda sample: sample.anonymous / 1e6,
    "descriptors": lambda sample: sample.descriptors,
    "threads": lambda sample: sample.threads,
}


def table(samples: Mapping[str, Sequence[Sample]]) -> Iterator[str]:
    """Yield what was seen of each process, line by line."""
    yield f"{'':32} {'first half':>29} {'last half':>29}"
    yield f"{'':32}" + f" {'least':>9} {'median':>9} {'most':>9}" * 2
    for process, seen in samples.items():
        middle = (seen[0].at_s + seen[-1].at_s) / 2
        late = [each for each in seen if each.at_s >= middle]
        for title, value in _COLUMNS.items():
            line = f"{process:16}{title:16}"
            for half in (seen[: -len(late)] or late, late):
                values = [value(each) for each in half]
                line += "".join(f" {each:9.1f}" for each in (min(values), median(values), max(values)))
            yield line


def conclusion(judgement: Judgement) -> Iterator[str]:
    """Yield what is to be said of it, line by line."""
    yield "In the last half, at rest:"
    for process, verdict in judgement.verdicts.items():
        for name, line in (("resident", verdict.resident), ("anonymous", verdict.anonymous)):
            yield (
                f"{process:16}{name:10}{line.level / 1e6:9.1f} MB, {line.per_hour / 1e6:+.2f} MB/h: "
                f"it moves by {line.growth:+.2%}, and its windows lie {line.spread:.2%} apart"
            )
        before, after = verdict.peaks
        yield f"{process:16}its most   {after / 1e6:8.1f} MB, {after / before - 1:+.2%} against the first half's"
        if verdict.taken > 1e6:
            yield f"{process:16}the kernel took up to {verdict.taken / 1e6:.1f} MB of its files from memory"
    faults = "; ".join(fault.sentence for fault in judgement.faults)
    yield f"NOT WELL: {faults}" if faults else "well: memory flat, descriptors constant"


def answers(soaked: Soaked) -> str:
    """Tell how the jobs ended."""
    outcomes = ", ".join(f"{count} {code}" for code, count in sorted(soaked.outcomes.items()))
    return f"{sum(soaked.outcomes.values())} jobs ({outcomes}), {len(soaked.lost)} lost, {len(soaked.changed)} changed"


def read(lines: TextIO) -> dict[str, list[Sample]]:
    """Read the samples of a run, by process."""
    samples: dict[str, list[Sample]] = {}
    kinds = {each.name: each.type for each in fields(Sample)}
    for row in csv.DictReader(lines):
        sample = Sample(**{name: kind(row[name]) for name, kind in kinds.items()})  # type: ignore[operator]
        samples.setdefault(sample.process, []).append(sample)
    return samples


def _say(line: str) -> None:
    print(line, flush=True)


def _judge(path: Path) -> int:
    with path.open(encoding="ascii", newline="") as lines:
        samples = read(lines)
    judgement = judge(samples)
    print(*table(samples), *conclusion(judgement), sep="\n")
    print("How the jobs ended is not in the file, nor how the agent did.")
    return 1 if judgement.faults else 0


def _soak(arguments: argparse.Namespace) -> int:
    store = Path(os.environ.get("EDGE_SLM_TEST_MODELS", models_dir()))
    text, vision = pull("smollm2-135m", store), pull("shapes-vision", store)
    print(f"seed {arguments.seed}; samples go to {arguments.csv}", flush=True)
    with arguments.csv.open("w", encoding="ascii", newline="") as out:
        soaking = soak(
            *(text, vision), seconds=60 * arguments.minutes, seed=arguments.seed, sample_s=1, out=out, say=_say
        )
        soaked = asyncio.run(soaking)
    judgement = soaked.judgement
    print(*table(soaked.samples), answers(soaked), *conclusion(judgement), sep="\n")
    return 1 if judgement.faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long; by default an hour")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of what is asked")
    parser.add_argument("--csv", type=Path, default=Path("soak.csv"), help="where the samples go")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="run nothing: judge the samples of an earlier run")
    given = parser.parse_args()
    raise SystemExit(_judge(given.judge) if given.judge else _soak(given))
