"""``edge-slm config``: what the layers come to."""

import argparse

from agent.layers import load, show


def add_to(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", configured: argparse.ArgumentParser
) -> None:
    """Add the command."""
    config = commands.add_parser("config", help="show or check the configuration")
    verbs = config.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("show", parents=[configured], help="print the effective configuration as YAML")
    verb.set_defaults(command=_show)
    verb = verbs.add_parser(
        "check", parents=[configured], help="say whether the configuration is right, and if not, why"
    )
    verb.set_defaults(command=_check)


def _show(args: argparse.Namespace) -> int:
    print(show(load(args.config, args.set)), end="")
    return 0


def _check(args: argparse.Namespace) -> int:
    settings = load(args.config, args.set).settings
    print(f"the configuration of {settings.device.id} is right")
    return 0
