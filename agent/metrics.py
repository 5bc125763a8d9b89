"""Numbers about the box, published every few seconds: counted by the rooms, gathered here."""

import os
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Counters:
    """What has happened since the start. Only ever counted up.

    Attributes:
        accepted: jobs taken on.
        duplicates: repeats of known jobs.
        ignored: messages that nobody could be answered for.
        broken: messages that met a defect.
        similar_frames: frames that were skipped because the one before looked the same.
        finished: finals by their error code, ``ok`` for success.
        completion_tokens: tokens produced.

    """

    accepted: int = 0
    duplicates: int = 0
    ignored: int = 0
    broken: int = 0
    similar_frames: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    completion_tokens: int = 0

    def as_dict(self) -> dict[str, object]:
        """Return the counters for ``metrics``; `dataclasses.asdict` cannot copy a Counter."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"finished": dict(self.finished)}


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process in bytes; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except OSError:
        return 0
