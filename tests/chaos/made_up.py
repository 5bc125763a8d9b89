"""A history that was made up, for the rules of the checker to be broken in."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agent.contract.jobs import Key
from agent.publisher import Event
from tests.chaos.checking import check
from tests.chaos.history import History, Quiet, Told

KEY = Key("five-a", "j1")
QUIET = Quiet(1, 50_000_000, Counter({"socket": 3, "pipe": 6}), 5, 2)


def final(text: str = "one two", *, seq: int = 2, attempt: int = 1, state: str = "SUCCEEDED") -> dict[str, Any]:
    return {"state": state, "text": text, "attempt": attempt, "seq": seq}


def chunk(seq: int, text: str, attempt: int = 1) -> dict[str, Any]:
    return {"attempt": attempt, "seq": seq, "text": text}


def logged(event: str, at: float, **fields: Any) -> dict[str, Any]:
    return {"event": event, "timestamp": datetime.fromtimestamp(at, UTC).isoformat(), **KEY._asdict(), **fields}


def told(kind: Event, body: dict[str, Any], at: float = 11.0, connection: int = 1) -> Told:
    return Told(KEY, kind, json.dumps(body).encode(), at, connection)


def saying(seen: Told, **change: Any) -> Told:
    """Return an event with something else in it."""
    return replace(seen, payload=json.dumps(seen.body | change).encode())


def went_well() -> History:
    """One job that was asked for, streamed and answered."""
    found = History({KEY: [9.0]}, acknowledged={KEY}, connected={1: 1.0, 2: 20.0}, quiet=[QUIET] * 3)
    found.taken = {KEY: [11.0]}
    for connection in (1, 0):
        (found.sent if connection else found.heard).extend(
            [
                told("chunk", chunk(0, "one "), connection=connection),
                told("chunk", chunk(1, "two"), connection=connection),
                told("final", final(), connection=connection),
            ]
        )
    found.log = [logged("job.started", 10.0, attempt=1), logged("job.finished", 11.0, attempt=1)]
    return found


def rules(history: History) -> set[str]:
    return {violation.rule for violation in check(history)}
