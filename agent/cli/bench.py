"""``edge-slm bench``."""

import argparse

from agent.bench import ROWS, VISION_ROWS, table
from agent.errors import UsageError
from agent.layers import load


def bench(args: argparse.Namespace) -> int:
    """Measure and print the table.

    Raises:
        UsageError: the options do not go together.

    """
    settings = load(args.config, args.set).settings
    if args.saturate:
        if args.rows or args.vision:
            raise UsageError("--saturate has rows of its own: leave --rows and --vision out")
        from agent.bench import saturate  # noqa: PLC0415  httpx, for those who need it

        return saturate.run(settings, seed=args.seed, as_json=args.json, plot=args.plot)
    if args.plot is not None:
        raise UsageError("--plot draws what --saturate measures: give both")
    rows = args.rows or (VISION_ROWS if args.vision else ROWS)
    return table.run(settings, rows=rows, as_json=args.json)
