"""``edge-slm doctor``: what this box is, what it has, and what keeps it from serving."""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial

from agent.doctor.examination import checks, examine
from agent.doctor.finding import Finding
from agent.hardware.machine import read
from agent.layers import ConfigError, load
from agent.remote import in_force
from agent.settings import Settings

_WELL, _STOPPED, _MISCONFIGURED = 0, 1, 2

SIGNS = {"well": "✓", "wrong": "✗", "told": "\N{EN DASH}"}


def doctor(args: argparse.Namespace) -> int:
    """Print what was found; the exit code is 2 for a wrong configuration, and 1 if anything else stops the box."""
    settings, first = _configured(args)
    found = _told(first, examine(checks(settings, read())), as_json=args.json)
    serves = not any(each.stops for each in found)
    if args.json:
        print(json.dumps({"serves": serves, "findings": [asdict(each) for each in found]}, ensure_ascii=False))
    return _MISCONFIGURED if first.stops else _WELL if serves else _STOPPED


def _configured(args: argparse.Namespace) -> tuple[Settings, Finding]:
    """Read the configuration; where it is wrong, go on with the defaults, so that the rest is told as well."""
    try:
        loaded, left_out = in_force(partial(load, args.config, args.set))
    except ConfigError as error:
        problems = str(error).replace("\n", "; ")
        return Settings(), Finding("configuration", "wrong", f"{problems}; what follows is by the defaults", stops=True)
    settings = loaded.settings
    box, facts = settings.device.id, {"device": settings.device.id}
    if left_out is not None:
        return settings, Finding("configuration", "wrong", left_out, facts=facts)
    if not args.config:
        text = f"no file was named, so that these are the defaults, for {box}: name yours by --config"
        return settings, Finding("configuration", "told", text, facts=facts)
    files = " and ".join(map(str, args.config))
    return settings, Finding("configuration", "well", f"{files}, for {box}, is right", facts=facts)


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
