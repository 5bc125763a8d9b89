"""What the network thread tells of a connection."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from agent.contract.messages import Inbound

Cause: TypeAlias = Literal["lost", "silent", "taken_over", "too_large"]


@dataclass(frozen=True, slots=True)
class Connack:
    """The broker's acceptance. ``receive_maximum`` is how many QoS 1 messages it takes unacknowledged."""

    session_present: bool
    max_packet: int | None
    receive_maximum: int


@dataclass(eq=False)
class ConnectFailed(Exception):  # noqa: N818  it tells what happened
    """The connection did not come about.

    Attributes:
        reason: one sentence.
        version: what that says about the MQTT version we spoke.

    """

    reason: str
    version: Literal["fine", "suspected", "refused", "doubted"] = "fine"


class SubscriptionRefused(ConnectFailed):
    """The broker is there, but does not let us be asked."""


class End(NamedTuple):
    """Why a connection that was open ended. Only ``lost`` and ``too_large`` may be a packet's fault."""

    reason: str
    cause: Cause = "lost"


class Refusal(NamedTuple):
    """A PUBACK that says no, in the broker's words, and whether it may say yes at another time."""

    reason: str
    may_pass: bool


class Events(Protocol):
    """Who is told what happens, through the handover and so on the event loop's thread, in order."""

    def opened(self) -> None:
        """Take note that the transport is connected and CONNECT on its way."""

    def answered(self, answer: Connack | ConnectFailed) -> None:
        """Take the CONNACK."""

    def subscribed(self, mid: int, refused: list[bool]) -> None:
        """Take the SUBACK of a SUBSCRIBE: for each filter, whether it was refused."""

    def received(self, message: Inbound | None, mid: int, weight: int, retained: bool) -> None:
        """Take a message, None if it could not be read; ``mid`` is 0 at QoS 0."""

    def published(self, mid: int, refusal: Refusal | None) -> None:
        """Take note that a QoS 0 message was written, or of the PUBACK of a QoS 1 message."""

    def ended(self, end: End) -> None:
        """Take note of the end; nothing comes after it."""
