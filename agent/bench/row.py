"""A line of the table, and what a client hears of a job that is measured."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from agent.bench.rig import Rig
from agent.client import Event


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    value: float
    unit: str
    bound: float
    side: Literal["at least", "at most"]
    detail: str

    @property
    def holds(self) -> bool:
        """Whether the bound holds."""
        return self.value >= self.bound if self.side == "at least" else self.value <= self.bound

    @property
    def bound_text(self) -> str:
        """The bound in words."""
        return f"{self.side} {self.bound:g} {self.unit}".rstrip()


@dataclass
class Heard:
    """What a client heard of one job, with times from just before it was published, in seconds.

    Attributes:
        accepted_s: until it was told that the job is taken on.
        first_s: until the first words.
        total_s: until the final.

    """

    accepted_s: float
    first_s: float
    total_s: float
    final: dict[str, Any]


Measure: TypeAlias = Callable[[Rig], Awaitable[list[Row]]]


async def heard(events: AsyncIterator[Event]) -> Heard:
    """Publish a job, which asking for its first event does, and listen to its end."""
    begun, accepted, first = time.perf_counter(), None, None
    async for event in events:
        now = time.perf_counter() - begun
        if event.kind == "state":
            accepted = now if accepted is None else accepted
        elif event.kind == "chunk":
            first = now if first is None else first
        elif event.body["error"] is not None:
            raise RuntimeError(f"a measured job failed: {event.body['error']['message']}")
        else:
            return Heard(now if accepted is None else accepted, now if first is None else first, now, event.body)
    raise RuntimeError("a measured job had no final")
