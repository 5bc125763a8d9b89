"""What stays of a run that broke a promise, for whoever looks for the reason."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from tests.chaos.history import History


def keep(history: History, folder: Path) -> None:
    """Write down all that was seen, and copy the agent's state, which may be on a disk that goes away."""
    with (folder / "history.jsonl").open("w") as file:
        file.writelines(json.dumps(line, default=_plain) + "\n" for line in _lines(history))
    shutil.copytree(folder / "state", folder / "state-at-end")


def _lines(history: History) -> Iterator[dict[str, Any]]:
    """Yield what the history has, piece by piece; the agent's log lies there as it is."""
    for field in fields(history):
        if field.name == "log" or field.name.startswith("_"):
            continue
        seen = getattr(history, field.name)
        for each in seen.items() if isinstance(seen, dict) else seen:
            yield {field.name: each}


def _plain(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else vars(value)
