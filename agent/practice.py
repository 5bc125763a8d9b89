"""A job of our own, for an engine that is idle because it is believed to be slow.

Rates are learned from jobs. A box that was slow for a while, hot, or beside a backup, sends away what it would be late
with, and so would never learn that it is fast again.
"""

import struct
import zlib

from agent.contract.jobs import Job, Message, PicturePart, Sampling, TextPart
from agent.placement import Station

# Enough tokens that the time of one is seen beside what each job costs anyway; a model of 7 tokens/s takes 8 s.
_TEXT = "Measurement {}. A sensor in a barn measures the temperature each minute and writes it down. "
_TIMES = 3
_MAX_TOKENS = 16
_SIDE = 336  # one crop


def exercise(station: Station, nonce: str) -> Job:
    """Return a job for the model of ``station``; nobody is told of its answer.

    It begins with a ``nonce``, so that no cache helps.
    """
    seen = station == "vision"
    parts: list[TextPart | PicturePart] = [TextPart(type="text", text=_TEXT.format(nonce) * _TIMES)]
    if seen:
        parts.insert(0, PicturePart(type="picture", index=0, detail="low"))
    return Job(
        client="edge-slm",
        id="practice",
        messages=(Message(role="user", content=parts),),
        pictures=(_png(),) if seen else (),
        sampling=Sampling(max_tokens=_MAX_TOKENS, temperature=0),
        stream=False,
        private=True,
    )


def _png() -> bytes:
    """Make a grey picture, as the PNG specification (W3C, third edition) has it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * _SIDE) * _SIDE)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
