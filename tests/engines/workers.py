"""Workers without a model that do as they are told."""

import sys

from agent.engines.watchdog import Patience

IMPATIENT = Patience(least_s=0.1, most_s=0.2, load_s=10, watch_s=0.05)

_WORDS = """
import os, sys, time
from agent.engines.wire import Cancel, Canceled, Decoder, Done, Failed, Progress, Ready, Started, Submit, Text, encode
decoder = Decoder()
provider = sys.argv[sys.argv.index("--provider") + 1] if "--provider" in sys.argv else "cpu"
def say(message): os.write(1, encode(message))
def told():
    while data := os.read(0, 65536):
        yield from decoder.feed(data)
def answer(job):
    for message in (Started(job, 1, 0), Text(job, 1, b"x"), Done(job, "stop", 1, 1, 0)): say(message)
"""
READY = "say(Ready(100, provider, 0.0))\n"
WELL = """
for message in told():
    if isinstance(message, Submit): answer(message.job)
"""
"""Answers every job."""


def worker(body: str) -> list[str]:
    """Make the command of a worker that is ready at once, and then does as told."""
    return [sys.executable, "-c", _WORDS + READY + body]


def worker_on(*unready: str, **bodies: str) -> list[str]:
    """Make the command of a worker that does as told for its provider, and on those ``unready`` before it is ready."""
    ready = f"if provider not in {unready!r}: {READY}"
    return [sys.executable, "-c", f"{_WORDS}{ready}exec({bodies!r}[provider])"]
