"""A layer from afar: laid over the box's own configuration, and what is answered about it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from agent.contract import VERSION
from agent.contract.events import encode
from agent.layers import ConfigError, Loaded, Problem, said
from agent.remote.allowed import objections

# All the keys that can be set, with prompts for a hundred cameras, are 20 KB.
MOST_BYTES = 64 << 10
# Of what is wrong, and of a sentence that says so, in characters: what was sent is in it, and an answer that is larger
# than the broker takes reaches nobody.
_MOST_REFUSED = 20
_LONGEST = 400

State: TypeAlias = Literal["applied", "refused", "rolled_back"]


class Read(Protocol):
    """Reads every layer of the box's configuration anew; raises `ConfigError`."""

    def __call__(self, *, remote: tuple[str, bytes] | None = None) -> Loaded:
        """Read them, with one from afar, and what to call it, where that is given."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a layer.

    Attributes:
        hash: of its bytes as they came, SHA-256 in hexadecimal.
        state: whether the box runs with it, did not try it, or has tried it and gone back.
        refused: where keys are the reason, each with a sentence; the key is empty where none is to blame.
        detail: one sentence that says why, where there is something to say.

    """

    hash: str
    state: State
    refused: tuple[tuple[str, str], ...] = ()
    detail: str | None = None

    @classmethod
    def refusing(cls, known: str, problems: Sequence[Problem]) -> "Verdict":
        """Refuse a layer, by its hash, for what is wrong with it: of that the first is told, in answer and log."""
        refused = tuple((_clipped(each.key or ""), _clipped(str(each))) for each in problems[:_MOST_REFUSED])
        more = f"no more than {_MOST_REFUSED} problems are told: mend these, and send it again"
        return cls(known, "refused", refused, more if len(refused) == _MOST_REFUSED else None)

    def encode(self) -> bytes:
        """Serialise as the contract's ``config/reported``."""
        refused = [{"key": key or None, "message": message} for key, message in self.refused]
        said = {"hash": self.hash, "state": self.state, "refused": refused, "detail": self.detail}
        return encode({"v": VERSION, **said})


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def digest(payload: bytes) -> str:
    """Return what a layer is known by."""
    return hashlib.sha256(payload).hexdigest()


def laid_over(read: Read, name: str, payload: bytes) -> Loaded:
    """Return the box's configuration with a layer from afar in its place among the others.

    Raises:
        ConfigError: the layer cannot be used, or cannot with the others.

    """
    if len(payload) > MOST_BYTES:
        raise ConfigError([Problem(f"{name}: {len(payload):,} bytes were sent, and {MOST_BYTES:,} are the most")])
    origins = said(name, payload)
    loaded = read(remote=(name, payload))
    wrong = [Problem(message, origins[key], key) for key, message in objections(origins, loaded.settings)]
    if wrong:
        raise ConfigError(wrong)
    return loaded
