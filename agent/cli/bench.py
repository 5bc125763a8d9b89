"""``edge-slm bench``."""

import argparse

from agent.bench import table
from agent.layers import load


def bench(args: argparse.Namespace) -> int:
    """Measure and print the table."""
    return table.run(load(args.config, args.set).settings, rows=args.rows, as_json=args.json)
