"""What goes into the spool and comes out of it."""

import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from agent.contract.jobs import Job, Key
from agent.errors import UserError


class SpoolError(UserError):
    """The disk or the file does not do what it should."""


class SpoolSick(SpoolError):  # noqa: N818  it is no error of ours
    """It is the disk's fault, and not the configuration's: it may pass."""


class SpoolFull(SpoolError):  # noqa: N818  it is an answer
    """The spool holds as much as it may: what comes has to wait, and what is in it goes on."""


class Receipt(StrEnum):
    """What was known of a key, (client, id), when something came for it."""

    NEW = "new"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Room:
    """How much the spool may hold.

    Attributes:
        jobs: requests without a final, and finals that the broker does not have.
        bytes: of what is in the file.

    """

    jobs: int = sys.maxsize
    bytes: int = sys.maxsize


Total: TypeAlias = tuple[str, str, int, int, float]
"""All that a payer has spent in a period: (period, payer, requests, tokens, money). A later one takes its place."""


@dataclass(frozen=True, slots=True)
class StoredFinal:
    """A final as it is published, every time that it is.

    Attributes:
        payload: the contract's ``final``, encoded.
        topic: where it goes.
        correlation: MQTT 5 correlation data to echo.
        finished_at: wall-clock seconds; retention counts from here.
        repeatable: whether a repeat of its request can come; if not, it is dropped once it is sent.

    """

    key: Key
    payload: bytes
    topic: str
    correlation: bytes | None
    finished_at: float
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Unsent:
    """A final that the broker has not acknowledged. ``seq`` grows, and serves once while the spool is open."""

    seq: int
    key: Key
    payload: bytes
    topic: str
    correlation: bytes | None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A request that an earlier run of the agent accepted and did not finish.

    Attributes:
        job: None if this version cannot read what is stored, such as a job written by a newer one.
        received_at: wall-clock seconds.
        attempt: 1 + the starts of the agent that it lived through, or more, by `Spool.restarted`.
        canceled: its client asked to end it.
        egress: bytes of it may have left the box: `Spool.leaving` was asked for.

    """

    key: Key
    job: Job | None
    received_at: float
    attempt: int
    canceled: bool
    egress: bool
