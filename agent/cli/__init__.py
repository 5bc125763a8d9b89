"""The command line. Exit codes: 0 well, 1 failed, 2 bad usage or configuration, 3 could not start.

Every error is one sentence that says what to do; ``--debug`` shows the traceback instead. Each command is a module
of its own, imported when it runs, so that ``edge-slm --help`` is quick on a Raspberry Pi.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from agent.errors import UsageError, UserError

_FAILED, _USAGE, _NOT_STARTED, _INTERRUPTED = 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    try:
        # In here, and imported here: an impatient Ctrl-C comes while these are read.
        from agent.cli.parser import parser  # noqa: PLC0415

        args = parser().parse_args(arguments)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    module, _, function = args.command.partition(":")
    try:
        code = getattr(import_module(f"agent.cli.{module}"), function)(args)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough, as in `edge-slm ask … | head -1`.
        sys.stderr.close()
        code = _FAILED
    except UserError as error:
        if args.debug:
            raise
        print(f"edge-slm: {error}", file=sys.stderr)
        code = _USAGE if isinstance(error, UsageError) else _NOT_STARTED if module == "run" else _FAILED
    except Exception as error:
        if args.debug:
            raise
        print(
            f"edge-slm: a defect ended it ({error!r}): run it with --debug, and report what it shows", file=sys.stderr
        )
        code = _FAILED
    sys.exit(code)
