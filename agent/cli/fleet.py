"""``edge-slm fleet``: how a fleet's boxes are, and a change of configuration for many of them."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from agent.client import host_and_port
from agent.errors import UsageError
from agent.fleet import NOTHING, Result, Standing, Target, Watch, changed, chosen, operators, roll_out
from agent.settings import Mqtt

# So much of a hash tells two changes apart at a glance.
_SHORT = 12


def push(args: argparse.Namespace) -> int:
    """Send a change to devices, to one of them first.

    Raises:
        UsageError: it is not clear what is to be sent, or to whom.
        ConfigError: a device would be wrong with it.

    """
    payload = _payload(args)
    if args.all == bool(args.group or args.device):
        raise UsageError("name whom it is for: groups and devices, by --group NAME and --device ID, or else --all")
    targets = chosen(args.fleet, args.group, args.device, (_name(args), payload))
    tell = _tell_json if args.json else _tell
    results = asyncio.run(_pushed(_mqtt(args), targets, payload, args.wait, tell))
    harmed = [each.device for each in results if each.harmed]
    unseen = [each.device for each in results if each.state == "never_seen"]
    if harmed:
        complaint = (
            f"{' and '.join(harmed)} did not take it, and no more devices are sent it: mend the change and push it "
            "again, or push what they had before (--clear for their own files alone)"
        )
    elif unseen:
        complaint = (
            f"this broker has never seen {' and '.join(unseen)}, so nothing was sent there: start what is not started, "
            "and push it again"
        )
    else:
        return 0
    print(f"edge-slm: {complaint}", file=sys.stderr)
    return 1


async def _pushed(
    mqtt: Mqtt, targets: Sequence[Target], payload: bytes, wait_s: float, tell: Callable[[Result], object]
) -> list[Result]:
    async with Watch(mqtt, targets) as watch:
        await watch.remembered()
        return await roll_out(watch, targets, payload, wait_s, tell)


def _payload(args: argparse.Namespace) -> bytes:
    given = [args.file is not None, bool(args.set), args.clear]
    if given.count(True) != 1:
        raise UsageError("say once what to change: --file FILE, --set KEY=VALUE, or --clear to take back what was sent")
    if args.file is None:
        return changed(args.set) if args.set else NOTHING
    try:
        payload: bytes = args.file.read_bytes()
    except OSError as error:
        raise UsageError(f"{args.file} cannot be read ({error.strerror}): name a YAML or JSON file") from None
    if not payload.strip():
        raise UsageError(f"{args.file} is empty: give --clear to take back what was sent")
    return payload


def _name(args: argparse.Namespace) -> str:
    return "--set" if args.file is None else str(args.file)


def _mqtt(args: argparse.Namespace) -> Mqtt:
    """Return the fleet's broker, as its base says, with the operator's own login."""
    overrides = []
    if args.broker is not None:
        host, port = host_and_port(args.broker)
        overrides = [f"mqtt.host={json.dumps(host)}", f"mqtt.port={port}"]
    return operators(args.fleet, args.config, overrides)


def _tell(result: Result) -> None:
    seconds = "" if result.seconds is None else f"{result.seconds:.1f} s"
    print(f"{result.device:<24} {result.state:<12} {seconds}".rstrip(), flush=True)
    for line in _reasons(result.report):
        print(f"    {line}", flush=True)


def _tell_json(result: Result) -> None:
    print(json.dumps(asdict(result), ensure_ascii=False), flush=True)


def _reasons(report: dict[str, object]) -> list[str]:
    """Return what a report says beside its state."""
    refused = report.get("refused")
    told = [str(each.get("message")) for each in refused if isinstance(each, dict)] if isinstance(refused, list) else []
    return [*told, str(report["detail"])] if report.get("detail") else told


def status(args: argparse.Namespace) -> int:
    """Print how devices are."""
    targets = chosen(args.fleet, args.group, args.device)
    rows = asyncio.run(_standings(_mqtt(args), targets))
    if args.json:
        found = [{"device": target.id, "groups": target.groups, **asdict(row)} for target, row in rows]
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    for target, row in rows:
        state = "its own files" if row.state == "own" else row.state
        print(f"{target.id:<24} {row.status or 'never seen':<12} {state:<14} {row.hash[:_SHORT]}".rstrip())
        if row.state in ("refused", "rolled_back"):
            for line in _reasons(row.report):
                print(f"    {line}")
    return 0


async def _standings(mqtt: Mqtt, targets: Sequence[Target]) -> list[tuple[Target, Standing]]:
    async with Watch(mqtt, targets) as watch:
        await watch.remembered()
        return [(target, watch.standing(target)) for target in targets]
