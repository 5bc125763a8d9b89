"""Messages whose MQTT 5 properties paho does not read, and mosquitto passes on: each costs itself and nothing else."""

from collections.abc import Callable

import pytest

from agent.contract.messages import Inbound
from tests.brokers import Broker
from tests.bus.conftest import Session
from tests.bus.device import Device
from tests.fuzz import packets

Start = Callable[..., Session]
TOPIC = "slm/box1/req/dev7/text"
PAYLOAD = b'{"id": "j1", "prompt": "x"}'
BYTE_ORDER_MARK = b"\0\3\xef\xbb\xbf"
PROPERTIES = {
    "a payload format that is none": b"\x01\x02",
    "U+FEFF in a user property": b"\x26\0\1a" + BYTE_ORDER_MARK,
    "U+FEFF in the content type": b"\x03" + BYTE_ORDER_MARK,
    "more than one byte of length": b"\x03" + BYTE_ORDER_MARK + b"\x26\0\1a\0\xc8" + bytes(b"x" * 200),
}


@pytest.mark.parametrize("properties", PROPERTIES.values(), ids=PROPERTIES)
@pytest.mark.parametrize("qos", [0, 1])
async def test_it_is_handed_over_without_its_properties_and_said_to_be_unreadable(
    broker: Broker, start: Start, properties: bytes, qos: int
) -> None:
    session = start(broker.port, protocol="5")
    await session.online()
    packet = packets.publish(TOPIC.encode(), PAYLOAD, flags=qos << 1, properties=properties)
    await packets.send(broker.port, "dev7", 5, packet)
    delivery = await session.deliveries.get()

    assert (delivery.message, delivery.qos) == (Inbound(TOPIC, PAYLOAD, readable=False), qos)


async def test_the_connection_goes_on_and_it_does_not_come_again_once_it_is_acked(broker: Broker, start: Start) -> None:
    session = start(broker.port, protocol="5")
    await session.online()
    await packets.send(broker.port, "dev7", 5, packets.publish(TOPIC.encode(), PAYLOAD, properties=b"\x01\x02"))
    (await session.deliveries.get()).ack()
    with Device(broker.port) as device:
        await device.publish(TOPIC, b"next")
        delivery = await session.deliveries.get()
        assert delivery.message.payload == b"next"
        delivery.ack()
    assert session.bus.stats.reconnects == 0
    session.cut()
    await session.online()
    again = []
    with Device(broker.port) as device:
        await device.publish(TOPIC, b"after the cut")
        while (payload := (await session.deliveries.get()).message.payload) != b"after the cut":
            again.append(payload)
    assert PAYLOAD not in again  # what was acked a moment before the cut may be
