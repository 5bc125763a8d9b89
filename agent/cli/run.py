"""``edge-slm run``: the daemon."""

import argparse
import asyncio

from agent import logs, service
from agent.layers import load


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    settings = load(args.config, args.set).settings
    logs.configure(settings.log.level, settings.log.format)
    asyncio.run(service.serve(settings))
    return 0
