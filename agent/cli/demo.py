"""``edge-slm demo``."""

import argparse
import asyncio

from agent import demo as show


def demo(args: argparse.Namespace) -> int:
    """Show the whole thing."""
    return asyncio.run(show.run(once=args.once, broker=args.broker))
