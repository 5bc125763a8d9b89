"""The inference process with two diseases, which certain prompts bring out: ``poison`` crashes it, ``leak`` stays."""

import ctypes
import sys
from collections.abc import Sequence

from agent.engines.worker import __main__ as worker
from agent.engines.worker.model import Model

_LEAK = 12 << 20
_leaked: list[bytes] = []


class _SickModel(Model):
    def prompt(self, conversation: bytes, pictures: Sequence[int] = ()) -> list[int]:
        if b"poison" in conversation:
            ctypes.string_at(0)
        if b"leak" in conversation:
            _leaked.append(b"x" * _LEAK)
        return super().prompt(conversation, pictures)


if __name__ == "__main__":
    worker.Model = _SickModel  # type: ignore[attr-defined]
    sys.exit(worker.main())
