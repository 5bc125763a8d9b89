"""``edge-slm bench``."""

import argparse

from agent.bench import ROWS, VISION_ROWS, table
from agent.layers import load


def bench(args: argparse.Namespace) -> int:
    """Measure and print the table."""
    rows = args.rows or (VISION_ROWS if args.vision else ROWS)
    return table.run(load(args.config, args.set).settings, rows=rows, as_json=args.json)
