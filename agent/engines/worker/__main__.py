"""``python -m agent.engines.worker FOLDER --slots N --max-tokens N [--threads N]``; started by `LocalEngine`.

It runs on the processor, or on ``--provider NAME [--provider-library PACKAGE] [--provider-options JSON]
[--own-memory]``.
"""

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from agent.engines import wire
from agent.engines.worker import limits
from agent.engines.worker.facts import ModelError, read
from agent.engines.worker.faults import DeviceLost
from agent.engines.worker.model import Model
from agent.engines.worker.pipe import Pipe
from agent.engines.worker.provider import Provider, ProviderError
from agent.engines.worker.scheduler import Scheduler

_PR_SET_PDEATHSIG = 1
# Of 1000: enough that the kernel, short of memory, ends the worker, which is restarted, and not the daemon.
_OOM_SCORE = "300"
# A picture's prefill must not take the cores from the words of a text model's worker. Measured with two threads each
# on two cores: 98 tokens/s beside pictures and not 50, of 138 alone; for that, pictures took twice as long meanwhile.
_NICE = 5


def main() -> int:
    """Load the model, then run jobs until the parent is gone. Return the exit code."""
    arguments = _arguments()
    pipe = Pipe()
    _depend_on_parent()
    try:
        begun = time.monotonic()
        if read(arguments.folder).vision:
            os.nice(_NICE)  # before the library's threads are there, which would not follow
        options = json.loads(arguments.provider_options)
        provider = Provider(arguments.provider, arguments.provider_library, options, arguments.own_memory)
        model = Model(arguments.folder, arguments.threads, provider)
        pipe.send(wire.Ready(model.facts.context, model.provider, time.monotonic() - begun, model.narrowed))
    except ModelError as error:
        print(repr(error.__cause__ or error), file=sys.stderr)  # noqa: T201  the parent logs it
        pipe.send(wire.Failed(str(error), isinstance(error, ProviderError) and error.lasting))
        return 1
    scheduler = Scheduler(
        model,
        slots=arguments.slots,
        default_max_tokens=arguments.max_tokens,
        send=pipe.send,
        clock=time.monotonic,
        available=limits.available_bytes,
    )
    try:
        while (messages := pipe.receive(wait=scheduler.idle)) is not None:
            for message in messages:
                scheduler.take(message)
            scheduler.step()
    except BrokenPipeError:
        pass
    except DeviceLost:
        pipe.send(wire.Failed("the provider computes nothing any more"))
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="agent.engines.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, required=True)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--provider-library")
    parser.add_argument("--provider-options", default="{}")
    parser.add_argument("--own-memory", action="store_true")
    return parser.parse_args()


def _depend_on_parent() -> None:
    """Die with the parent, however it dies, and never before it tells.

    A terminal's Ctrl-C and systemd's SIGTERM reach the whole group; to the parent they mean a drain, in which
    running jobs end well. The parent ends the worker with SIGKILL.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())
