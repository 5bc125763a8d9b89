"""The session against a real mosquitto."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.bus import BusError, Delivery
from agent.contract.messages import Outgoing
from tests.brokers import Broker, free_port
from tests.bus.conftest import Log, Session, Version
from tests.bus.device import Device

Start = Callable[..., Session]
TEXT = "slm/box1/req/dev7/text"
CHUNK = "slm/box1/res/dev7/j1/chunk"
FINAL = "slm/box1/res/dev7/j1/final"
STATUS = "slm/box1/status"


async def test_it_says_online_once_it_is_subscribed(broker: Broker, start: Start, version: Version) -> None:
    session = start(broker.port, protocol=version)
    await session.online()
    await session.bus.deliver(Outgoing(FINAL, b"{}"))  # so that the broker has what came before

    with Device(broker.port) as device:
        await device.subscribe(STATUS)
        status = await device.messages.get()
    assert (status.payload, status.retain, session.bus.connected) == (b"online", True, True)


async def test_the_broker_says_offline_when_the_line_breaks(broker: Broker, start: Start, version: Version) -> None:
    session = start(broker.port, protocol=version)
    await session.online()

    with Device(broker.port) as device:
        await device.subscribe(STATUS)
        said = [await device.payload()]
        session.cut()
        said += [await device.payload(), await device.payload()]
    assert said == [b"online", b"offline", b"online"]


async def test_it_speaks_mqtt_5_where_the_broker_does(broker: Broker, start: Start, log: Log) -> None:
    session = start(broker.port)
    await session.online()

    connected = await log.event("mqtt.connected")
    assert (connected["protocol"], connected["session_present"], connected["generation"]) == ("5", False, 1)


async def test_mqtt_5_properties_of_a_request_arrive(broker: Broker, start: Start) -> None:
    session = start(broker.port, protocol="5")
    await session.online()

    with Device(broker.port) as device:
        await device.publish(
            TEXT,
            b"hi",
            CorrelationData=b"\xff1",
            ResponseTopic="clients/dev7/a",
            MessageExpiryInterval=60,
            UserProperty=[("model", "a"), ("model", "b")],
        )
    delivery = await session.deliveries.get()
    message = delivery.message
    assert (message.topic, message.payload, message.correlation) == (TEXT, b"hi", b"\xff1")
    assert (message.response_topic, message.expiry_s, message.properties) == ("clients/dev7/a", 60, {"model": "b"})


async def test_mqtt_5_properties_of_an_answer_leave(broker: Broker, start: Start) -> None:
    session = start(broker.port, protocol="5")
    await session.online()

    with Device(broker.port) as device:
        await device.subscribe(FINAL)
        await session.bus.deliver(Outgoing(FINAL, b"{}", correlation=b"\xff1", properties=(("a", "b"),)))
        properties = (await device.messages.get()).properties
    found = vars(properties)
    assert (found["CorrelationData"], found["UserProperty"]) == (b"\xff1", [("a", "b")])


async def test_an_answer_on_3_1_1_leaves_mqtt_5_properties_out(broker: Broker, start: Start) -> None:
    session = start(broker.port, protocol="3.1.1")
    await session.online()

    with Device(broker.port) as device:
        await device.subscribe(FINAL)
        await session.bus.deliver(Outgoing(FINAL, b"{}", correlation=b"\xff1", properties=(("a", "b"),)))
        assert await device.payload() == b"{}"


async def test_what_was_retained_before_us_is_marked_on_3_1_1(broker: Broker, start: Start) -> None:
    with Device(broker.port) as device:
        await device.publish(TEXT, b"old", retain=True)
        session = start(broker.port, protocol="3.1.1")
        await session.online()
        await device.publish(TEXT, b"new")
    first, second = await session.deliveries.get(), await session.deliveries.get()
    assert (first.retained, second.retained) == (True, False)


async def test_what_was_retained_before_us_does_not_come_on_mqtt_5(broker: Broker, start: Start) -> None:
    with Device(broker.port) as device:
        await device.publish(TEXT, b"old", retain=True)
        session = start(broker.port, protocol="5")
        await session.online()
        await device.publish(TEXT, b"new")
    assert (await session.deliveries.get()).message.payload == b"new"


async def test_what_was_not_acked_comes_again_after_a_reconnect(broker: Broker, start: Start, version: Version) -> None:
    session = start(broker.port, protocol=version)
    await session.online()
    with Device(broker.port) as device:
        await device.publish(TEXT, b"1")
        await device.publish(TEXT, b"2")
    (await session.deliveries.get()).ack()
    await session.deliveries.get()
    await session.bus.deliver(Outgoing(FINAL, b"{}"))  # so that the ack before it has left
    session.cut()

    assert (await session.deliveries.get()).message.payload == b"2"


async def test_a_delivery_survives_kill_9_of_the_broker(broker: Broker, start: Start, version: Version) -> None:
    session = start(broker.port, protocol=version)
    await session.online()
    broker.kill()
    delivering = asyncio.create_task(session.bus.deliver(Outgoing(FINAL, b"{}", retain=True)))
    broker.start()
    await delivering

    with Device(broker.port) as device:
        await device.subscribe(FINAL)
        assert await device.payload() == b"{}"


async def test_requests_sent_while_we_are_away_arrive_later(broker: Broker, start: Start, version: Version) -> None:
    session = start(broker.port, protocol=version)
    await session.online()
    await session.bus.close()
    with Device(broker.port) as device:
        await device.publish(TEXT, b"hi")
    again = start(broker.port, protocol=version)

    assert (await again.deliveries.get()).message.payload == b"hi"


async def test_close_says_offline_ends_run_and_may_be_repeated(broker: Broker, start: Start, version: Version) -> None:
    session = start(broker.port, protocol=version)
    await session.online()
    await session.bus.close()
    await session.running
    await session.bus.close()

    with Device(broker.port) as device:
        await device.subscribe(STATUS)
        assert await device.payload() == b"offline"


async def test_close_ends_a_run_that_has_no_broker(start: Start, log: Log) -> None:
    session = start(free_port())
    await log.event("mqtt.connect_failed")
    await session.bus.close()
    await session.running

    assert not session.bus.connected


async def test_nothing_is_sent_while_not_connected(broker: Broker, start: Start) -> None:
    session = start(broker.port)
    sent = session.bus.send(Outgoing(CHUNK, b"x", qos=0))

    assert (sent, session.bus.stats.dropped_sends) == (False, 1)


async def test_a_broker_that_stops_reading_congests_us_until_it_reads_again(
    broker: Broker, start: Start, version: Version
) -> None:
    session = start(broker.port, protocol=version)
    await session.online()
    chunk = Outgoing(CHUNK, bytes(16 << 10), qos=0)
    broker.freeze()
    sent = 0
    while session.bus.send(chunk):
        sent += 1
        await asyncio.sleep(0)
        assert sent < 2000  # 32 MiB, more than any socket's buffer
    was_congested = session.bus.congested
    broker.thaw()
    await session.bus.deliver(Outgoing(FINAL, b"{}"))  # it comes after them all

    assert (was_congested, session.bus.congested, session.bus.send(chunk)) == (True, False, True)


async def test_states_are_bounded_while_the_broker_does_not_answer(broker: Broker, start: Start) -> None:
    session = start(broker.port)
    await session.online()
    broker.freeze()
    sent = [session.bus.send(Outgoing("slm/box1/res/dev7/j1/state", b"{}")) for _ in range(2000)]
    broker.thaw()

    assert (sent[:1000], sent[-1]) == ([True] * 1000, False)


async def test_a_topic_with_a_wildcard_cannot_be_delivered(broker: Broker, start: Start, version: Version) -> None:
    session = start(broker.port, protocol=version)
    await session.online()

    with pytest.raises(BusError, match="wildcards"):
        await session.bus.deliver(Outgoing("clients/dev7/+", b"{}"))


@pytest.mark.parametrize("topic", ["", "a\0b", "\ud800", "x" * 70_000])
async def test_an_invalid_topic_is_not_sent_and_harms_nothing(broker: Broker, start: Start, topic: str) -> None:
    session = start(broker.port)
    await session.online()
    sent = session.bus.send(Outgoing(topic, b"{}", qos=0))
    await session.bus.deliver(Outgoing(FINAL, b"{}"))

    assert (sent, session.bus.stats.reconnects) == (False, 0)


async def test_user_properties_that_do_not_fit_are_refused(broker: Broker, start: Start) -> None:
    session = start(broker.port, protocol="5")
    await session.online()

    with pytest.raises(BusError, match="cannot be published"):
        await session.bus.deliver(Outgoing(FINAL, b"{}", properties=(("a", "b" * 70_000),)))


async def test_a_message_larger_than_the_broker_takes_is_refused(tmp_path: Path, start: Start) -> None:
    with Broker(tmp_path, "max_packet_size 20000") as broker:
        session = start(broker.port, protocol="5")
        await session.online()
        assert session.bus.max_packet == 20_000
        with pytest.raises(BusError, match="at most 20,000"):
            await session.bus.deliver(Outgoing(FINAL, bytes(20_000)))


async def test_an_exception_of_the_receiver_ends_the_run(broker: Broker, start: Start) -> None:
    def receive(_delivery: Delivery) -> None:
        raise ZeroDivisionError

    session = start(broker.port, receive=receive)
    await session.online()
    with Device(broker.port) as device:
        await device.publish(TEXT, b"hi")

    with pytest.raises(ZeroDivisionError):
        await session.running


async def test_a_cancelled_delivery_leaves_nothing_behind(broker: Broker, start: Start) -> None:
    session = start(broker.port)
    await session.online()
    broker.freeze()
    deliveries = [asyncio.create_task(session.bus.deliver(Outgoing(FINAL, b"{}"))) for _ in range(200)]
    await asyncio.sleep(0)
    for each in deliveries:
        each.cancel()
    await asyncio.gather(*deliveries, return_exceptions=True)
    broker.thaw()
    await session.bus.deliver(Outgoing(FINAL, b"{}"))

    assert "0 to deliver" in repr(session.bus)
