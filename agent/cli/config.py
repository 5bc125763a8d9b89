"""``edge-slm config``: what the layers come to."""

import argparse

from agent.layers import load, show


def render(args: argparse.Namespace) -> int:
    """Print the effective configuration."""
    print(show(load(args.config, args.set)), end="")
    return 0


def check(args: argparse.Namespace) -> int:
    """Say that the configuration is right; what is wrong with it is a `ConfigError`."""
    settings = load(args.config, args.set).settings
    print(f"the configuration of {settings.device.id} is right")
    return 0
