"""paho's client, with what one broken message may cost bounded to that message."""

from collections.abc import Callable

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode


class ForgivingClient(Client):
    """A client that hands over messages whose MQTT 5 properties it cannot read.

    paho ends the connection upon them, without a PUBACK. Brokers do pass such messages on: mosquitto 2.0.11 a payload
    format of 2, which is wrong, and U+FEFF in a string, which is right. The session is persistent, so the message came
    again on each connection and ended it: one request of anybody kept a box offline for good.

    It uses two private names of paho, for want of public ones; ``tests/bus/test_unreadable.py`` holds them.

    Attributes:
        on_unreadable: called on the network's thread with this client and the message, its properties left out.
        packet_bytes: of the packet of the message that a callback is given.

    """

    on_unreadable: Callable[["ForgivingClient", MQTTMessage], None]
    packet_bytes = 0

    def _handle_publish(self) -> MQTTErrorCode:
        packet: bytes = bytes(self._in_packet["packet"])
        self.packet_bytes = len(packet)
        try:
            return super()._handle_publish()
        except Exception:  # noqa: BLE001  paho has no one exception for what it cannot read
            self.on_unreadable(self, without_properties(self._in_packet["command"], packet))
            return MQTTErrorCode.MQTT_ERR_SUCCESS


def without_properties(command: int, packet: bytes) -> MQTTMessage:
    """Read an MQTT 5 PUBLISH, but for its properties.

    Args:
        command: the first byte of its fixed header.
        packet: what follows the fixed header.

    """
    qos = command >> 1 & 3
    at = 2 + int.from_bytes(packet[:2])
    message = MQTTMessage(topic=packet[2:at])
    if qos:
        message.mid = int.from_bytes(packet[at : at + 2])
        at += 2
    length, shift = 0, 0
    for byte in packet[at : at + 4]:
        length |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:  # noqa: PLR2004  the last byte of a variable byte integer
            break
    message.qos, message.retain, message.payload = qos, bool(command & 1), packet[at + length :]
    return message
