"""The command line. Exit codes: 0 well, 1 failed, 2 bad usage or configuration, 3 could not start.

Every error is one sentence that says what to do; ``--debug`` shows the traceback instead. Each command imports
what it needs when it runs, so that ``edge-slm --help`` is quick on a Raspberry Pi.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from agent import __version__
from agent.bus import BusError
from agent.cli import ask, config, models
from agent.client import ClientError
from agent.demo.children import DemoError
from agent.layers import ConfigError, load
from agent.models import ModelError
from agent.spool import SpoolError

_FAILED, _USAGE, _NOT_STARTED, _INTERRUPTED = 1, 2, 3, 130

_EXPECTED = (ConfigError, ModelError, ClientError, SpoolError, BusError, DemoError)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    args = _parser().parse_args(arguments)
    try:
        code = args.command(args)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough, as in `edge-slm ask … | head -1`.
        sys.stderr.close()
        code = _FAILED
    except _EXPECTED as error:
        if args.debug:
            raise
        print(f"edge-slm: {error}", file=sys.stderr)
        code = _USAGE if isinstance(error, ConfigError) else _NOT_STARTED if args.command is _run else _FAILED
    except Exception as error:
        if args.debug:
            raise
        print(
            f"edge-slm: a defect ended it ({error!r}): run it with --debug, and report what it shows", file=sys.stderr
        )
        code = _FAILED
    sys.exit(code)


def _run(args: argparse.Namespace) -> int:
    from agent import logs, service  # noqa: PLC0415  see the module's docstring

    settings = load(args.config, args.set).settings
    logs.configure(settings.log.level, settings.log.format)
    asyncio.run(service.serve(settings))
    return 0


def _demo(args: argparse.Namespace) -> int:
    from agent import demo  # noqa: PLC0415  see the module's docstring

    return asyncio.run(demo.run(once=args.once, broker=args.broker))


def _bench(args: argparse.Namespace) -> int:
    from agent import bench  # noqa: PLC0415  see the module's docstring

    return bench.run(load(args.config, args.set).settings, rows=args.rows, as_json=args.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edge-slm", description="Small language models on an edge box, over MQTT.")
    parser.add_argument("--version", action="version", version=f"edge-slm {__version__}")
    parser.add_argument("--debug", action="store_true", help="show a traceback instead of one sentence")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    configured = argparse.ArgumentParser(add_help=False)
    configured.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="YAML; a later file wins over an earlier",
    )
    configured.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="one setting, such as mqtt.host=10.0.0.5"
    )

    run = commands.add_parser("run", parents=[configured], help="be the box: serve jobs until stopped")
    run.set_defaults(command=_run)

    demo = commands.add_parser("demo", help="start a broker and a box, and ask it something")
    demo.add_argument("--once", action="store_true", help="end after the answer")
    demo.add_argument("--broker", metavar="HOST[:PORT]", help="use this broker instead of starting one")
    demo.set_defaults(command=_demo)

    ask.add_to(commands, configured)
    models.add_to(commands, configured)
    config.add_to(commands, configured)

    bench = commands.add_parser("bench", parents=[configured], help="measure this machine, as ratios within one run")
    bench.add_argument("--json", action="store_true", help="machine-readable")
    bench.add_argument("--rows", metavar="NAME", nargs="*", help="only these rows of the table")
    bench.set_defaults(command=_bench)
    return parser
