"""``edge-slm models``: what can be had, what is here, whether it is whole, and whether it fits."""

import argparse
import json
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.hardware import machine
from agent.hardware.choice import choose
from agent.kernel_files import total_bytes
from agent.layers import load
from agent.models.add import add
from agent.models.catalogue import CPU, Catalogue, Entry, catalogue
from agent.models.memory import RESERVE, fits
from agent.models.pull import pull
from agent.models.remove import remove
from agent.models.store import installed, place, variants, verify
from agent.progress import Progress
from agent.remote import in_force
from agent.settings import Settings

_INTERRUPTED = 130
# MemoryHigh of systemd/edge-slm.service: a box refuses models by that, not by what this shell may have.
_SHARE = 0.85


def _configured(args: argparse.Namespace) -> tuple[Settings, Path, Catalogue]:
    """Return what the box runs with, the store and the catalogue."""
    loaded, left_out = in_force(partial(load, args.config, args.set))
    if left_out:
        print(f"edge-slm: {left_out}", file=sys.stderr)
    settings = loaded.settings
    return settings, args.dir or settings.models_dir, catalogue(settings.models.catalogue_file)


def show(args: argparse.Namespace) -> int:
    """Print what there is."""
    _, store, known = _configured(args)
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
    print(f"(What fits is reckoned for one job at a time, and {_memory() / 1e9:,.1f} GB for the service.)")
    return 0


def _rows(store: Path, known: Catalogue) -> list[dict[str, Any]]:
    here, total = installed(store), _memory()
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
    settings, store, known = _configured(args)
    for name in [args.name] if args.name else _to_be_pulled(settings, known):
        provider = args.provider or (CPU if args.name else _preferred(settings, known[name]))
        if name in known and provider in known[name].variants:
            _warn(name, provider, known[name].variants[provider].memory)
        try:
            with closing(Progress(sys.stderr)) as progress:
                folder = pull(name, store, progress, known, provider)
        except KeyboardInterrupt:
            print("edge-slm: stopped; the same command fetches what is still missing", file=sys.stderr)
            return _INTERRUPTED
        print(f"{name} is ready in {folder}")
    return 0


def _preferred(settings: Settings, entry: Entry) -> str:
    """Return the provider that this box prefers of those that a model is to be had for."""
    choices = choose(settings.engine.provider, settings.engine.provider_options, machine.read())
    return next((choice.provider for choice in choices if choice.provider in entry.variants), CPU)


def _warn(name: str, provider: str, needed: int) -> None:
    """Say of a model that does not fit here, before gigabytes are fetched; they may be meant for another box."""
    here = _memory()
    if provider == CPU and not fits(needed, here):
        print(
            f"{name} needs {needed / 1e9:,.1f} GB of memory for one job, and the service can give it "
            f"{max(0, here - RESERVE) / 1e9:,.1f} GB here: name a smaller model, unless this is for another box",
            file=sys.stderr,
        )


def _memory() -> int:
    """Return what of this box's memory the service may have."""
    return int(_SHARE * total_bytes())


def _to_be_pulled(settings: Settings, known: Catalogue) -> list[str]:
    """Return the configured models that can be pulled; of others it is said that they are left alone."""
    names = _named(settings)
    for name in names:
        if name not in known:
            print(f"{name} is not in the catalogue, and left as it is")
    return [name for name in names if name in known]


def bring(args: argparse.Namespace) -> int:
    """Install a model that was carried here."""
    _, store, known = _configured(args)
    try:
        with closing(Progress(sys.stderr)) as progress:
            folder = add(args.source, store, name=args.name, provider=args.provider, progress=progress, known=known)
    except KeyboardInterrupt:
        print("edge-slm: stopped; nothing was installed", file=sys.stderr)
        return _INTERRUPTED
    print(f"{folder.name} is ready in {folder}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Print what is wrong with a model's files; the exit code is 1 if anything is."""
    _, store, known = _configured(args)
    problems = verify(args.name, store, known)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{args.name} is whole")
    return 1 if problems else 0


def drop(args: argparse.Namespace) -> int:
    """Delete a model."""
    settings, store, known = _configured(args)
    if not args.force and _is_configured(args.name, store, settings):
        raise UsageError(
            f"the configuration names {args.name}, so the box would not start without it: configure another model "
            "first, or repeat this with --force"
        )
    freed = remove(args.name, store, known)
    print(f"{args.name} is gone, and {freed / 1e6:,.0f} MB are free again once no box runs it")
    return 0


def _is_configured(name: str, store: Path, settings: Settings) -> bool:
    """Whether the configuration names a model, or one of its folders."""
    doomed = {(store / each).resolve() for each in variants(name, store)}
    base = name.partition("@")[0]
    return any(each == base or Path(each).expanduser().resolve() in doomed for each in _named(settings))


def _named(settings: Settings) -> list[str]:
    return [name for name in (settings.models.text, settings.models.vision) if name is not None]
