"""``edge-slm models``: what can be had, what is here, whether it is whole, and whether it fits."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.kernel_files import total_bytes
from agent.layers import load
from agent.models.add import add
from agent.models.catalogue import CPU, Catalogue, catalogue
from agent.models.memory import fits
from agent.models.pull import pull
from agent.models.remove import remove
from agent.models.store import installed, place, verify
from agent.progress import Progress
from agent.settings import Settings

_INTERRUPTED = 130


def _settings(args: argparse.Namespace) -> Settings:
    return load(args.config, args.set).settings


def _places(args: argparse.Namespace) -> tuple[Path, Catalogue]:
    """Return the store and the catalogue."""
    settings = _settings(args)
    return args.dir or settings.models_dir, catalogue(settings.models.catalogue_file)


def show(args: argparse.Namespace) -> int:
    """Print what there is."""
    store, known = _places(args)
    rows = _rows(store, known)
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        name = row["name"] if row["provider"] == CPU else f"{row['name']} ({row['provider']})"
        size = f"{row['bytes'] / 1e6:,.0f} MB"
        print(f"{name:<22} {row['title']:<32} {size:>9}  {row['licence']:<12} {_state(row)}")
    own = set(installed(store)) - {row["folder"] for row in rows}
    for name in sorted(own):
        print(f"{name:<22} your own, installed")
    return 0


def _rows(store: Path, known: Catalogue) -> list[dict[str, Any]]:
    here, total = installed(store), total_bytes()
    return [
        {
            "name": entry.name,
            "title": entry.title,
            "licence": entry.licence,
            "modalities": list(entry.modalities),
            "context": entry.context,
            "provider": provider,
            "bytes": variant.bytes,
            "memory": variant.memory,
            "fits": fits(variant.memory, total),
            "folder": place(store, entry.name, provider).name,
            "installed": place(store, entry.name, provider).name in here,
        }
        for entry in known.values()
        for provider, variant in entry.variants.items()
    ]


def _state(row: dict[str, Any]) -> str:
    if not row["fits"]:
        return f"{'installed, but ' if row['installed'] else ''}needs {row['memory'] / 1e9:,.1f} GB of memory"
    if row["installed"]:
        return "installed"
    variant = "" if row["provider"] == CPU else f" --provider {row['provider']}"
    return f"`edge-slm models pull {row['name']}{variant}`"


def fetch(args: argparse.Namespace) -> int:
    """Pull a model, or those that are configured."""
    store, known = _places(args)
    for name in [args.name] if args.name else _configured(args, known):
        progress = Progress(sys.stderr)
        try:
            folder = pull(name, store, progress, known, args.provider)
        except KeyboardInterrupt:
            progress.close()
            print("edge-slm: stopped; what is here stays, and the same command goes on from there", file=sys.stderr)
            return _INTERRUPTED
        progress.close()
        print(f"{name} is ready in {folder}")
    return 0


def _configured(args: argparse.Namespace, known: Catalogue) -> list[str]:
    """Return the configured models that can be pulled; of others it is said that they are left alone."""
    models = _settings(args).models
    names = [name for name in (models.text, models.vision) if name is not None]
    for name in names:
        if name not in known:
            print(f"{name} is not in the catalogue, and left as it is")
    return [name for name in names if name in known]


def bring(args: argparse.Namespace) -> int:
    """Install a model that was carried here."""
    store, known = _places(args)
    progress = Progress(sys.stderr)
    folder = add(args.source, store, name=args.name, provider=args.provider, progress=progress, known=known)
    progress.close()
    print(f"{folder.name} is ready in {folder}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Print what is wrong with a model's files; the exit code is 1 if anything is."""
    problems = verify(args.name, *_places(args))
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{args.name} is whole")
    return 1 if problems else 0


def drop(args: argparse.Namespace) -> int:
    """Delete a model."""
    models = _settings(args).models
    if args.name.partition("@")[0] in (models.text, models.vision) and not args.force:
        raise UsageError(
            f"the configuration names {args.name}, so the box would not start without it: configure another model "
            "first, or repeat this with --force"
        )
    freed = remove(args.name, *_places(args))
    print(f"{args.name} is gone, and {freed / 1e6:,.0f} MB are free again")
    return 0
