"""A message as the rooms see it, free of any client library."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Inbound:
    """A received message.

    Attributes:
        correlation: MQTT 5 correlation data, as it came.
        response_topic: MQTT 5 response topic, not yet judged.
        expiry_s: MQTT 5 message expiry interval that is left, in seconds.
        properties: MQTT 5 user properties; of a repeated name, the last.
        readable: whether its MQTT 5 properties could be read; if not, nobody knows what they asked for.

    """

    topic: str
    payload: bytes
    correlation: bytes | None = None
    response_topic: str | None = None
    expiry_s: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. What MQTT 3.1.1 has no place for is left out there.

    Attributes:
        correlation: MQTT 5 correlation data.
        properties: MQTT 5 user properties.

    """

    topic: str
    payload: bytes
    qos: Literal[0, 1] = 1
    retain: bool = False
    correlation: bytes | None = None
    properties: tuple[tuple[str, str], ...] = ()
