"""``edge-slm models``: what can be had, what is here, and whether it is whole."""

import argparse
import json
from pathlib import Path

from agent.layers import load
from agent.models.catalogue import CATALOGUE
from agent.models.pull import pull
from agent.models.store import installed, verify
from agent.progress import Progress


def _dir(args: argparse.Namespace) -> Path:
    return args.dir or load(args.config, args.set).settings.models_dir


def show(args: argparse.Namespace) -> int:
    """Print what there is."""
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


def fetch(args: argparse.Namespace) -> int:
    """Pull a model."""
    progress = Progress()
    folder = pull(args.name, _dir(args), progress)
    progress.close()
    print(f"{args.name} is ready in {folder}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Print what is wrong with a model's files; the exit code is 1 if anything is."""
    problems = verify(args.name, _dir(args))
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{args.name} is whole")
    return 1 if problems else 0
