"""What was seen of a run from outside."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

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
        at: when, in seconds since the epoch.
        connection: on which of the agent's connections it left, from 1; 0 for what a client heard.

    """

    key: Key
    kind: Event
    body: dict[str, Any]
    at: float = 0.0
    connection: int = 0


@dataclass(frozen=True)
class Quiet:
    """The agent's process at rest: its resident bytes, its open files by what they are, and its threads."""

    pid: int
    resident: int
    files: Counter[str]
    threads: int

    def __str__(self) -> str:
        return f"pid {self.pid}, {self.resident / 1e6:.1f} MB, {self.files.total()} open files, {self.threads} threads"


@dataclass
class History:
    """What the proxy, the clients, the agent's log and its supervisor saw.

    Attributes:
        asked: requests that clients published.
        acknowledged: requests whose PUBACK the agent sent.
        sent: what the agent published, in order.
        taken: jobs of whose final the broker sent its PUBACK.
        heard: what clients heard, in order.
        connected: when the agent began each of its connections, in seconds since the epoch.
        log: the agent's log.
        unread: lines of it that are no events.
        deaths: how the agent ended by itself.
        quiet: the agent at rest: warm, when its process was left alone from then on, and at the end.
        repeated: requests that had to be asked for again at the end, and who lost what.
        struck: faults that happened, by kind.
        under_way: how many jobs had no final each time that something struck.

    """

    asked: set[Key] = field(default_factory=set)
    acknowledged: set[Key] = field(default_factory=set)
    sent: list[Told] = field(default_factory=list)
    taken: set[Key] = field(default_factory=set)
    heard: list[Told] = field(default_factory=list)
    connected: dict[int, float] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)
    quiet: list[Quiet] = field(default_factory=list)
    repeated: dict[Key, str] = field(default_factory=dict)
    struck: Counter[str] = field(default_factory=Counter)
    under_way: list[int] = field(default_factory=list)
    _moments: defaultdict[Moment, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    @property
    def broker_kills(self) -> int:
        """How often the broker was killed: it may lose what it has acknowledged and not saved yet."""
        return self.struck["broker: kill"]

    @property
    def owed(self) -> set[Key]:
        """Requests that the agent has acknowledged and whose final the broker does not have."""
        return self.acknowledged - self.taken

    @property
    def in_order(self) -> list[Told]:
        """What the agent published, as it published it.

        The proxy may read the rest of one connection after the beginning of the next.
        """
        return sorted(self.sent, key=lambda told: told.connection)

    def lost(self, key: Key) -> str:
        """Say why a request has no final at its client, now that everything has come to rest."""
        if key in self.taken:
            return BY_BROKER[1]
        return BY_AGENT if key in self.acknowledged else BY_BROKER[0]

    def finals(self) -> Iterator[Told]:
        """Yield every final that was seen anywhere."""
        yield from (told for told in (*self.sent, *self.heard) if told.kind == "final")

    async def next(self, moment: Moment) -> None:
        """Wait for what passes the proxy next."""
        await self._moments[moment].wait()

    def passed(self, moment: Moment) -> None:
        """Let those go on who wait for this."""
        self._moments.pop(moment, asyncio.Event()).set()

    def told(self, key: Key, kind: Event, body: dict[str, Any], connection: int = 0) -> None:
        """Take note of an event that passes by now."""
        kept = self.sent if connection else self.heard
        kept.append(Told(key, kind, body, time.time(), connection))
        if connection:
            self.passed(kind)
