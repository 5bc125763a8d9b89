"""``edge-slm doctor``: what this box is, what it has, and what keeps it from serving."""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from agent.doctor.examination import checks, examine
from agent.doctor.finding import Finding
from agent.hardware.machine import read
from agent.layers import ConfigError, load
from agent.remote import held
from agent.settings import Settings

SIGNS = {"well": "✓", "wrong": "✗", "told": "\N{EN DASH}"}


def doctor(args: argparse.Namespace) -> int:
    """Print what was found; the exit code is 1 if anything keeps the box from serving."""
    settings, first = _configured(args)
    found = _told(first, examine(checks(settings, read())), as_json=args.json)
    serves = not any(each.stops for each in found)
    if args.json:
        print(json.dumps({"serves": serves, "findings": [asdict(each) for each in found]}, ensure_ascii=False))
    return 0 if serves else 1


def _configured(args: argparse.Namespace) -> tuple[Settings, Finding]:
    """Read the configuration; where it is wrong, go on with the defaults, so that the rest is told as well."""
    try:
        settings = load(args.config, args.set).settings
        remote = held(settings)
        if remote is not None:
            settings = load(args.config, args.set, remote=remote).settings
    except ConfigError as error:
        problems = str(error).replace("\n", "; ")
        return Settings(), Finding("configuration", "wrong", f"{problems}; what follows is by the defaults", stops=True)
    afar = "" if remote is None else ", with what was sent from afar"
    return settings, Finding("configuration", "well", f"the configuration of {settings.device.id} is right{afar}")


def _told(first: Finding, others: Iterable[Finding], *, as_json: bool) -> list[Finding]:
    """Gather all findings, and print each when it is known."""

    def one_by_one() -> Iterator[Finding]:
        yield first
        yield from others

    found = []
    for each in one_by_one():
        found.append(each)
        if not as_json:
            print(f"{SIGNS[each.mark]} {each.check:<13} {each.text}", flush=True)
    return found
