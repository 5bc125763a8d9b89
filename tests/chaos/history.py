"""What was seen of a run from outside."""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from agent.contract.jobs import Key
from agent.publisher import Event

Moment: TypeAlias = Literal["request", "acknowledged", "state", "chunk", "final", "taken"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)
"""What passes between the agent and the broker: a request and its PUBACK, three events, and the PUBACK of a final."""

BY_BROKER = ("the broker lost the request", "the broker lost the final")
BY_AGENT = "the agent owed the final"


@dataclass(frozen=True)
class Told:
    """An event of a job, as it passed by.

    Attributes:
        payload: its bytes, which are what may not change.
        at: when, in seconds since the epoch.
        connection: on which of the agent's connections it left, from 1; 0 for what a client heard.

    """

    key: Key
    kind: Event
    payload: bytes
    at: float = 0.0
    connection: int = 0

    @cached_property
    def body(self) -> dict[str, Any]:
        """The payload, read."""
        found: dict[str, Any] = json.loads(self.payload)
        return found


class Outage(NamedTuple):
    """A time in which the broker was killed or stopped, in seconds since the epoch."""

    how: str
    began: float
    over: float


class Lost(NamedTuple):
    """Who lost a request or its final, and each time that the one who lost it had taken it on."""

    by: str
    when: tuple[float, ...] = ()


@dataclass(frozen=True)
class Quiet:
    """The agent's process at rest.

    Attributes:
        resident: bytes.
        files: open ones, by what they are.
        workers: how many processes it has started.

    """

    pid: int
    resident: int
    files: Counter[str]
    threads: int
    workers: int

    def __str__(self) -> str:
        return (
            f"pid {self.pid}, {self.resident / 1e6:.1f} MB, {self.files.total()} open files, {self.threads} threads,"
            f" {self.workers} workers"
        )


@dataclass
class History:
    """What the proxy, the clients, the agent's log and its supervisor saw.

    Attributes:
        asked: requests that clients published, and each time that they did, in seconds since the epoch.
        sampled: those whose words are drawn by chance, so that no two attempts say the same.
        acknowledged: requests whose PUBACK the agent sent.
        sent: what the agent published, in order.
        stored: finals that were in the agent's spool while it was down, and when they were first seen there.
        taken: jobs of whose final the broker sent its PUBACK, and each time that it did.
        heard: what clients heard, in order.
        connected: when the agent began each of its connections, in seconds since the epoch.
        log: the agent's log.
        unread: lines of it that are no events.
        deaths: how the agent ended by itself.
        quiet: the agent at rest: warm, when its process was left alone from then on, and at the end.
        repeated: requests that had to be asked for again at the end, and who lost what.
        recited: jobs that were asked for once more under a new id when all was quiet, and that id.
        outages: of the broker.
        struck: faults that happened, by kind.
        missed: faults that found nothing to hit.
        under_way: how many jobs had no final each time that something struck.

    """

    asked: dict[Key, list[float]] = field(default_factory=dict)
    sampled: set[Key] = field(default_factory=set)
    acknowledged: set[Key] = field(default_factory=set)
    sent: list[Told] = field(default_factory=list)
    stored: dict[tuple[Key, bytes], float] = field(default_factory=dict)
    taken: dict[Key, list[float]] = field(default_factory=dict)
    heard: list[Told] = field(default_factory=list)
    connected: dict[int, float] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)
    quiet: list[Quiet] = field(default_factory=list)
    repeated: dict[Key, Lost] = field(default_factory=dict)
    recited: dict[Key, Key] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    under_way: list[int] = field(default_factory=list)
    _moments: defaultdict[Moment, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    @property
    def owed(self) -> set[Key]:
        """Requests that the agent has acknowledged and whose final the broker does not have."""
        return self.acknowledged - self.taken.keys()

    @property
    def in_order(self) -> list[Told]:
        """What the agent published, as it published it.

        The proxy may read the rest of one connection after the beginning of the next.
        """
        return sorted(self.sent, key=lambda told: told.connection)

    def lost(self, key: Key) -> Lost:
        """Say why a request has no final at its client, now that everything has come to rest."""
        if key in self.taken:
            return Lost(BY_BROKER[1], tuple(self.taken[key]))
        return Lost(BY_AGENT) if key in self.acknowledged else Lost(BY_BROKER[0], tuple(self.asked.get(key, ())))

    def finals(self) -> Iterator[Told]:
        """Yield every final that was seen anywhere."""
        yield from (told for told in (*self.sent, *self.heard) if told.kind == "final")
        yield from (Told(key, "final", payload, at) for (key, payload), at in self.stored.items())

    async def next(self, moment: Moment) -> None:
        """Wait for what passes the proxy next."""
        await self._moments[moment].wait()

    def passed(self, moment: Moment) -> None:
        """Let those go on who wait for this."""
        self._moments.pop(moment, asyncio.Event()).set()

    def told(self, key: Key, kind: Event, payload: bytes, connection: int = 0) -> None:
        """Take note of an event that passes by now."""
        kept = self.sent if connection else self.heard
        kept.append(Told(key, kind, payload, time.time(), connection))
        if connection:
            self.passed(kind)
