"""The table: what was measured, its bounds, and whether they hold."""

import asyncio
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from math import isnan

from agent import __version__
from agent.bench import ROWS, VISION_ROWS, measures, pictures
from agent.bench.rig import Rig
from agent.bench.row import Row
from agent.settings import Settings


def run(settings: Settings, *, rows: Sequence[str], as_json: bool) -> int:
    """Measure and print the table.

    Args:
        settings: the models, the slots and the threads are taken from here.
        rows: which measures, by name.
        as_json: print JSON instead of a table.

    Returns:
        the exit code: 0 if every bound holds, 1 otherwise.

    """
    rig = Rig(settings)
    # Asked for here, so that a model that is not there is told before anything is measured.
    models = []
    if {*rows} & {*ROWS}:
        models.append(rig.text.name)
    if {*rows} & {*VISION_ROWS}:
        models.append(rig.vision.name)
    found = asyncio.run(_measured(rig, rows, quiet=as_json))
    if as_json:
        print(json.dumps(as_dicts(found), indent=1))
    else:
        print(f"\n{heading(models)}\n\n{table(found)}")
    return 0 if all(row.holds for row in found) else 1


async def _measured(rig: Rig, names: Sequence[str], *, quiet: bool) -> list[Row]:
    found = []
    for name in names:
        if not quiet:
            print(f"measuring {name} …", flush=True)
        found += await (measures.MEASURES | pictures.MEASURES)[name](rig)
    return found


def heading(models: Sequence[str]) -> str:
    """Say what was measured where."""
    return f"edge-slm {__version__}, {', '.join(models)}, {platform.machine()}, Python {platform.python_version()}"


def as_dicts(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the rows for a script; JSON has no NaN, which is the value of what never happened."""
    return [asdict(row) | {"value": None if isnan(row.value) else row.value, "holds": row.holds} for row in rows]


def table(rows: list[Row]) -> str:
    """Write the rows as a Markdown table."""
    lines = ["| what | measured | bound | holds | from |", "|---|---|---|---|---|"]
    for row in rows:
        holds = "yes" if row.holds else "**no**"
        lines.append(f"| {row.what} | {row.value:.3g} {row.unit} | {row.bound_text} | {holds} | {row.detail} |")
    return "\n".join(lines)
