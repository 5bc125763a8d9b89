"""What was seen of a run from outside: by the clients, by the stand-in of the cloud, and in the box's log."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agent.contract.jobs import Key
from agent.standin import Plan, Seen
from tests.chaos.history import Told


@dataclass(frozen=True)
class Ask:
    """A job as it was asked for.

    Attributes:
        fields: of its request. Its prompt begins with its id, by which the stand-in knows it.
        phase: which part of the run it belongs to.
        at: when, in seconds since the epoch.

    """

    key: Key
    fields: dict[str, Any]
    phase: str
    at: float

    @property
    def stays(self) -> bool:
        """Whether it may not leave the box."""
        return bool(self.fields.get("private")) or self.fields.get("placement") == "local_only"


@dataclass(frozen=True)
class Received:
    """A request for a chat completion, or for one that was postponed, as it came to the stand-in.

    Attributes:
        sent: everything that the client sent, headers and body.
        plan: what it met.
        at: when it came, in seconds since the epoch.
        ended: when it was over.
        whole: whether the box heard the answer to its end, whatever it was.
        poll: whether it asked for what was postponed.

    """

    sent: bytes
    plan: Plan
    at: float
    ended: float
    whole: bool = True
    poll: bool = False


class Down(NamedTuple):
    """A time in which the box was down, in seconds since the epoch: from its end until it was online again."""

    since: float
    until: float


@dataclass
class History:
    """All of it.

    Attributes:
        asked: in the order of asking.
        heard: what clients heard, in order.
        received: what came to the stand-in, in order.
        down: each time that the box was.
        log: the box's, over all its lives.
        unread: lines of it that are no events.

    """

    asked: dict[Key, Ask] = field(default_factory=dict)
    heard: list[Told] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    down: list[Down] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def received_by(self, clock: Callable[[float], float], seen: Iterable[Seen]) -> None:
        """Take over what the stand-in has seen; ``clock`` turns its times into seconds since the epoch."""
        for each in seen:
            sent = json.dumps(each.headers).encode() + each.payload
            ended = clock(each.at if each.ended_at is None else each.ended_at)
            poll = each.method == "GET"
            self.received.append(Received(sent, each.plan, clock(each.at), ended, not each.disconnected, poll))

    def finals(self) -> dict[Key, list[Told]]:
        """Return each job's finals, in the order heard."""
        found: defaultdict[Key, list[Told]] = defaultdict(list)
        for told in self.heard:
            if told.kind == "final":
                found[told.key].append(told)
        return found

    def requests(self, ask: Ask) -> Iterator[Received]:
        """Yield what the stand-in received that has a job's id in it."""
        mark = ask.key.id.encode()
        return (each for each in self.received if mark in each.sent)
