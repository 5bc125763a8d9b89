"""A job of our own, for an engine that is idle because it is believed to be slow.

Rates are learned from jobs. A box that was slow for a while, hot, or beside a backup, sends away what it would be late
with, and so would never learn that it is fast again.
"""

import asyncio
import struct
import zlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

import structlog

from agent.contract.jobs import Job, Message, PicturePart, Sampling, TextPart
from agent.engines.base import Done
from agent.line import Line
from agent.placement import Station

_log = structlog.get_logger(__name__)

Work: TypeAlias = Coroutine[Any, Any, None]

# Enough tokens that the time of one is seen beside what each job costs anyway; a model of 7 tokens/s takes 8 s.
_TEXT = "Measurement {}. A sensor in a barn measures the temperature each minute and writes it down. "
_TIMES = 3
_MAX_TOKENS = 16
_SIDE = 336  # one crop


class Practice:
    """Has engines that should practise do so, one job each, and lets a client's job go first.

    Args:
        lines: the engines'.
        spawn: runs the work as a task, whose defects end the agent.
        clock: the monotonic clock, in seconds.

    """

    def __init__(
        self,
        lines: Mapping[Station, Line],
        spawn: Callable[[Work, str], asyncio.Task[None]],
        clock: Callable[[], float],
    ) -> None:
        self._lines = lines
        self._spawn = spawn
        self._clock = clock
        self._tasks: dict[Station, asyncio.Task[None]] = {}

    def start(self, now: float) -> Iterator[float]:
        """Have those practise that should now; yield when to ask again for the others."""
        for station, line in self._lines.items():
            at, task = line.practises_at(), self._tasks.get(station)
            if at is None or (task is not None and not task.done()):
                continue
            if at > now:
                yield at
            else:
                self._tasks[station] = self._spawn(self._run(station, line), f"practice {station}")

    def make_way(self, station: Station) -> None:
        """End what practises on an engine: a job starts there."""
        if station in self._tasks:
            self._tasks[station].cancel()

    def stop(self) -> None:
        """End all."""
        for task in self._tasks.values():
            task.cancel()

    async def _run(self, station: Station, line: Line) -> None:
        job, done = exercise(station, f"{self._clock():.6f}"), None
        try:
            async with aclosing(line.engine.run(job)) as events:
                async for event in events:
                    done = event if isinstance(event, Done) else None
        except Exception as error:  # noqa: BLE001  nobody asked for this job: whatever it meets is no reason to end
            _log.info("engine.practice_failed", station=station, error=str(error))
        finally:
            line.practised(job, done, self._clock())
        _log.info("engine.practised", station=station, forecast=repr(line.estimator))


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
