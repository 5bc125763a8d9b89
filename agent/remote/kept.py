"""What a box was told from afar, on its disk: the layer that holds, one on trial, and the last that failed its trial.

A trial is marked before it begins. So a layer that takes the agent down with it is known by its mark at the next start,
and is not tried again. Everything here blocks.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.durable import synced
from agent.remote.layer import digest

_DIED = "the agent ended while it tried this, and has gone back to what it had: see its log for why"


@dataclass(frozen=True, slots=True)
class Failure:
    """A layer that failed its trial.

    Attributes:
        hash: as in `Verdict`.
        circumstances: in which it was tried, see `agent.remote.force.circumstances`; it may do better in others.
        detail: one sentence that says why.

    """

    hash: str
    circumstances: str
    detail: str


class Kept:
    """The files, under ``folder``.

    Args:
        folder: theirs alone.
        circumstances: in which layers are tried; they change with the box's own files.

    Attributes:
        good: the layer that holds; empty if there is none.
        failure: the last one that failed its trial, and was not followed by one that did not.

    Raises:
        OSError: they cannot be read.

    """

    def __init__(self, folder: Path, circumstances: str) -> None:
        self._good, self._trial, self._failed = (folder / name for name in ("good", "trial", "failed"))
        self.circumstances = circumstances
        self.good = _read(self._good)
        self.failure = self._read_failure()

    def recover(self) -> None:
        """Take note of a trial in which the agent ended, before the first one of this process."""
        if self._trial.exists():
            self.fail(_read(self._trial), _DIED)

    def failed(self, known: str) -> str | None:
        """Return why the layer of this hash failed its trial, if it is the last that did; None if it may be tried."""
        last = self.failure
        return last.detail if last and (last.hash, last.circumstances) == (known, self.circumstances) else None

    def begin(self, layer: bytes) -> None:
        """Mark that the trial of a layer begins; raises OSError."""
        _write(self._trial, layer)

    def hold(self, layer: bytes) -> None:
        """End the trial of a layer that is good: it takes the place of the last one; raises OSError."""
        self.good, self.failure = layer, None
        try:
            self._trial.replace(self._good)
            self._failed.unlink(missing_ok=True)
            synced(self._good.parent)
        except OSError:
            self.withdraw()  # a mark that stays would say at the next start that the layer failed
            raise

    def fail(self, layer: bytes, detail: str) -> None:
        """End the trial of a layer that is not good. Where the disk takes nothing, its mark stays and says as much."""
        self.failure = Failure(digest(layer), self.circumstances, detail)
        with suppress(OSError):
            _write(self._failed, json.dumps(asdict(self.failure)).encode())
            self._trial.unlink()

    def withdraw(self) -> None:
        """End a trial that has shown nothing."""
        with suppress(OSError):
            self._trial.unlink()

    def _read_failure(self) -> Failure | None:
        try:
            return Failure(**json.loads(_read(self._failed) or b"null"))
        except (TypeError, ValueError):
            return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _write(path: Path, data: bytes) -> None:
    """Replace a file as a whole: after a power cut the old one is there, or the new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_bytes(data)
    synced(new)
    new.replace(path)
    synced(path.parent)
