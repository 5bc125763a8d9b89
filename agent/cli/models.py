"""``edge-slm models``: what can be had, what is here, and whether it is whole."""

import argparse
import json
from pathlib import Path

from agent.layers import load
from agent.models.catalogue import CATALOGUE
from agent.models.store import installed, verify
from agent.progress import Progress


def add_to(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", configured: argparse.ArgumentParser
) -> None:
    """Add the command."""
    models = commands.add_parser("models", help="list, pull or verify models")
    verbs = models.add_subparsers(metavar="VERB", required=True)
    in_dir = argparse.ArgumentParser(add_help=False, parents=[configured])
    in_dir.add_argument("--dir", metavar="DIR", type=Path, help="where models are kept; by default as configured")

    verb = verbs.add_parser("list", parents=[in_dir], help="what can be pulled, and what is here")
    verb.add_argument("--json", action="store_true", help="machine-readable")
    verb.set_defaults(command=_list)

    verb = verbs.add_parser("pull", parents=[in_dir], help="fetch a model and make it ready")
    verb.add_argument("name", help="a name that `edge-slm models list` shows")
    verb.set_defaults(command=_pull)

    verb = verbs.add_parser("verify", parents=[in_dir], help="check a model's files against what was installed")
    verb.add_argument("name", help="a catalogue name, or a folder with a genai_config.json")
    verb.set_defaults(command=_verify)


def _dir(args: argparse.Namespace) -> Path:
    return args.dir or load(args.config, args.set).settings.models_dir


def _list(args: argparse.Namespace) -> int:
    here = installed(_dir(args))
    rows = [
        {
            "name": entry.name,
            "title": entry.title,
            "licence": entry.licence,
            "modalities": list(entry.modalities),
            "context": entry.context,
            "bytes": entry.bytes,
            "installed": entry.name in here,
        }
        for entry in CATALOGUE.values()
    ]
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        mark = "installed" if row["installed"] else f"`edge-slm models pull {row['name']}`"
        size = f"{int(str(row['bytes'])) / 1e6:,.0f} MB"
        print(f"{row['name']:<18} {row['title']:<32} {size:>9}  {row['licence']:<12} {mark}")
    return 0


def _pull(args: argparse.Namespace) -> int:
    from agent.models.pull import pull  # noqa: PLC0415  only this verb needs what it imports

    progress = Progress()
    folder = pull(args.name, _dir(args), progress)
    progress.close()
    print(f"{args.name} is ready in {folder}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    problems = verify(args.name, _dir(args))
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{args.name} is whole")
    return 1 if problems else 0
