"""``edge-slm config``: what the layers come to, why, and whether it is right."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.layers import ConfigError, Explanation, Loaded, explain, load, show
from agent.layers.checking import Finding, Report
from agent.layers.checking import check as check_fleet
from agent.layers.schema import schema
from agent.remote import in_force


def render(args: argparse.Namespace) -> int:
    """Print the effective configuration."""
    print(show(_in_force(args)), end="")
    return 0


def why(args: argparse.Namespace) -> int:
    """Print where keys have their values from."""
    explanations = explain(_in_force(args), args.key)
    if args.json:
        print(json.dumps([_as_json(each) for each in explanations], indent=2, ensure_ascii=False))
    else:
        print("\n".join(line for each in explanations for line in _lines(each)))
    return 0


def check(args: argparse.Namespace) -> int:
    """Say that a box's configuration, or each of a fleet, is right, or else everything that is wrong."""
    if args.path and args.config:
        raise UsageError("name what to check once: a PATH, or what the box would be given as --config")
    fleet = args.path is not None and args.path.is_dir()
    report = check_fleet(args.path, args.set) if fleet else _alone([args.path] if args.path else args.config, args.set)
    if args.json:
        print(json.dumps(_report_as_json(report), indent=2, ensure_ascii=False))
        return 2 if report.findings else 0
    for name in report.unused:
        print(f"{args.path / 'groups' / name}.yaml: no device is in this group", file=sys.stderr)
    if report.findings:
        raise UsageError("\n".join(map(str, report.findings)))
    for device, groups in report.devices.items():
        print(f"the configuration of {device} is right" + (f" ({', '.join(groups)})" if fleet and groups else ""))
    return 0


def editors(_: argparse.Namespace) -> int:
    """Print the JSON Schema."""
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0


def _in_force(args: argparse.Namespace) -> Loaded:
    """Load all layers as the box would start with them; say where it would leave out what was sent from afar."""
    loaded, left_out = in_force(partial(load, args.config, args.set))
    if left_out is not None:
        print(f"edge-slm: {left_out}", file=sys.stderr)
    return loaded


def _alone(files: Sequence[Path], overrides: Sequence[str]) -> Report:
    """Check one box, with this process's environment."""
    try:
        device = load(files, overrides).settings.device
    except ConfigError as wrong:
        return Report({}, tuple(map(Finding, wrong.problems)))
    return Report({device.id: device.groups}, ())


def _report_as_json(report: Report) -> dict[str, Any]:
    return {
        "devices": [{"id": device, "groups": groups} for device, groups in report.devices.items()],
        "problems": [
            {
                "file": problem.origin and problem.origin.source,
                "line": problem.origin and problem.origin.line,
                "key": problem.key,
                "message": problem.message,
                "devices": finding.devices,
            }
            for finding in report.findings
            for problem in (finding.problem,)
        ],
        "unused_groups": report.unused,
    }


def _as_json(explanation: Explanation) -> dict[str, Any]:
    said = [{"source": each.origin.source, "line": each.origin.line, "value": each.value} for each in explanation.said]
    return {"key": explanation.key, "value": explanation.value, "said": said}


def _lines(explanation: Explanation) -> Iterator[str]:
    yield f"{explanation.key} = {_inline(explanation.value)}"
    for number, each in enumerate(explanation.said):
        yield f"  over {each.origin}: {_inline(each.value)}" if number else f"  from {each.origin}"


def _inline(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
