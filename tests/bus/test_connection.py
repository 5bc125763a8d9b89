"""What a broker may do that mosquitto does not do on demand, packet by packet."""

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.bus import BusError, connection, patience
from agent.bus.flow import INBOUND_HIGH
from agent.contract.messages import Outgoing
from tests.bus.conftest import Log, Session, Version
from tests.bus.scripted import CONNACK, DISCONNECT, PINGREQ, PUBACK, PUBLISH, SUBACK, ScriptedBroker

Start = Callable[..., Session]
TEXT = "slm/box1/req/dev7/text"
FINAL = Outgoing("slm/box1/res/dev7/j1/final", b"{}")
INFO = Outgoing("slm/box1/info", b"{}")
MARK = Outgoing("slm/box1/metrics", b"{}", qos=0)

UNSUPPORTED_VERSION = 0x84
V3_UNSUPPORTED_VERSION = 1
NOT_AUTHORIZED = 0x87
SUBSCRIPTION_REFUSED = 0x80
RECEIVE_MAXIMUM_1 = b"\x03\x21\x00\x01"


async def _next_version(scripted: ScriptedBroker) -> str:
    return (await (await scripted.accept()).connect()).version


@pytest.mark.parametrize("code", [UNSUPPORTED_VERSION, V3_UNSUPPORTED_VERSION])
async def test_a_refusal_of_mqtt_5_leads_to_3_1_1(scripted: ScriptedBroker, start: Start, code: int) -> None:
    start(scripted.port)
    await (await scripted.accept()).connect(code)

    assert await _next_version(scripted) == "3.1.1"


async def test_a_close_upon_mqtt_5_thrice_leads_to_3_1_1(scripted: ScriptedBroker, start: Start) -> None:
    start(scripted.port)
    for _ in range(3):
        peer = await scripted.accept()
        await peer.connect(None)
        peer.close()

    assert await _next_version(scripted) == "3.1.1"


async def test_a_broker_that_was_away_is_spoken_to_in_mqtt_5_after_all(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    for _ in range(3):
        peer = await scripted.accept()
        await peer.connect(None)
        peer.close()
    await (await scripted.accept()).connect()  # back again, and asked in 3.1.1
    peer = await scripted.accept()
    await peer.bring_online()
    await session.online()

    assert peer.version == "5"


async def test_silence_upon_mqtt_5_thrice_leads_to_3_1_1(
    scripted: ScriptedBroker, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNACK_WAIT_S", 0.1)
    start(scripted.port)
    for _ in range(3):
        await (await scripted.accept()).connect(None)

    assert await _next_version(scripted) == "3.1.1"


async def test_a_login_that_is_refused_does_not_change_the_version(
    scripted: ScriptedBroker, start: Start, log: Log
) -> None:
    start(scripted.port)
    await (await scripted.accept()).connect(NOT_AUTHORIZED)

    assert await _next_version(scripted) == "5"
    assert "check mqtt.username" in (await log.event("mqtt.connect_failed"))["reason"]


async def test_a_configured_version_is_spoken_only(scripted: ScriptedBroker, start: Start) -> None:
    start(scripted.port, protocol="5")
    await (await scripted.accept()).connect(UNSUPPORTED_VERSION)

    assert await _next_version(scripted) == "5"


async def test_a_refused_subscription_is_logged_and_tried_again(
    scripted: ScriptedBroker, start: Start, version: Version, log: Log
) -> None:
    session = start(scripted.port, protocol=version)
    peer = await scripted.accept()
    await peer.connect()
    await peer.subscribe(1, SUBSCRIPTION_REFUSED, 1)
    await (await scripted.accept()).bring_online()
    await session.online()

    assert "slm/box1/req/+/image/+: allow it in the broker's ACL" in (await log.event("mqtt.connect_failed"))["reason"]


async def test_it_is_not_connected_before_it_is_subscribed(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.connect()
    peer.publish(TEXT, b"hi", mid=1)
    await session.deliveries.get()

    assert not session.bus.connected


async def test_a_connection_lost_before_it_is_subscribed_is_tried_again(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.connect()
    peer.close()
    await (await scripted.accept()).bring_online()
    await session.online()

    assert session.bus.connected


async def test_a_broker_that_does_not_answer_pings_is_left(scripted: ScriptedBroker, start: Start, log: Log) -> None:
    session = start(scripted.port)
    session.bus._settings = session.bus._settings.model_copy(update={"keepalive_s": 1})
    await (await scripted.accept()).bring_online()

    assert "silent for longer than the keepalive" in (await log.event("mqtt.disconnected"))["reason"]


async def test_a_broker_that_answers_twice_does_no_harm(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    peer.send(CONNACK, b"\0\0\0")
    peer.send(SUBACK, b"\0\1\0\1\1\1")
    peer.publish(TEXT, b"hi")
    await session.deliveries.get()

    assert session.bus.connected


async def test_acks_leave_in_the_order_of_receipt(scripted: ScriptedBroker, start: Start, version: Version) -> None:
    session = start(scripted.port, protocol=version)
    peer = await scripted.accept()
    await peer.bring_online()
    peer.publish(TEXT, b"1", mid=11)
    peer.publish(TEXT, b"2", mid=12)
    first, second = await session.deliveries.get(), await session.deliveries.get()
    second.ack()
    first.ack()

    assert [(await peer.expect(PUBACK)).mid for _ in range(2)] == [11, 12]


async def test_an_ack_is_sent_once(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    peer.publish(TEXT, b"1", mid=11)
    delivery = await session.deliveries.get()
    delivery.ack()
    delivery.ack()
    session.bus.send(MARK)

    assert [(await peer.packet()).kind for _ in range(2)] == [PUBACK, PUBLISH]


async def test_an_ack_of_a_former_connection_is_not_sent(
    scripted: ScriptedBroker, start: Start, version: Version
) -> None:
    session = start(scripted.port, protocol=version)
    peer = await scripted.accept()
    await peer.bring_online()
    peer.publish(TEXT, b"stored late", mid=1)
    stale = await session.deliveries.get()
    peer.close()
    # The broker has lost the session, and gives the identifier to another job.
    peer = await scripted.accept()
    await peer.bring_online()
    peer.publish(TEXT, b"another", mid=1)
    await session.deliveries.get()
    stale.ack()
    session.bus.send(MARK)

    assert (await peer.packet()).kind == PUBLISH


async def test_a_topic_that_is_not_utf_8_is_counted_and_acked(
    scripted: ScriptedBroker, start: Start, version: Version
) -> None:
    session = start(scripted.port, protocol=version)
    peer = await scripted.accept()
    await peer.bring_online()
    peer.publish(b"slm/box1/req/\xff/text", b"1", mid=11)

    assert (await peer.expect(PUBACK)).mid == 11
    assert session.bus.stats.malformed == 1


async def test_a_delivery_waits_for_its_puback(scripted: ScriptedBroker, start: Start, version: Version) -> None:
    session = start(scripted.port, protocol=version)
    peer = await scripted.accept()
    await peer.bring_online()
    delivering = asyncio.create_task(session.bus.deliver(FINAL))
    mid = (await peer.expect(PUBLISH)).mid
    was_done = delivering.done()
    peer.puback(mid)
    await delivering

    assert not was_done


async def test_a_delivery_without_puback_is_published_again_on_another_version(
    scripted: ScriptedBroker, start: Start
) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    delivering = asyncio.create_task(session.bus.deliver(FINAL))
    await peer.expect(PUBLISH)
    peer.close()
    await (await scripted.accept()).connect(UNSUPPORTED_VERSION)
    peer = await scripted.accept()
    await peer.bring_online()
    again = await peer.expect(PUBLISH)
    peer.puback(again.mid)
    await delivering

    assert (peer.version, again.topic) == ("3.1.1", FINAL.topic)


async def test_what_is_sent_on_connecting_goes_before_the_backlog(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    delivering = asyncio.create_task(session.bus.deliver(FINAL))
    await peer.expect(PUBLISH)
    session.bus._on_connected = lambda: session.bus.send(INFO)
    peer.close()
    peer = await scripted.accept()
    await peer.bring_online()
    topics = [(await peer.expect(PUBLISH)).topic for _ in range(2)]
    delivering.cancel()

    assert topics == [INFO.topic, FINAL.topic]


async def test_a_state_that_waits_is_dropped_with_the_connection(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.connect(properties=RECEIVE_MAXIMUM_1)
    await peer.subscribe()
    await peer.expect(PUBLISH)
    await session.online()
    session.bus.send(INFO)  # behind `online`, which is not acknowledged
    peer.close()
    peer = await scripted.accept()
    await peer.bring_online()
    await session.online()
    session.bus.send(MARK)

    assert (await peer.expect(PUBLISH)).topic == MARK.topic


async def test_a_delivery_cancelled_while_it_waits_is_not_published(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.connect(properties=RECEIVE_MAXIMUM_1)
    await peer.subscribe()
    online = await peer.expect(PUBLISH)
    await session.online()
    delivering = asyncio.create_task(session.bus.deliver(FINAL))
    await asyncio.sleep(0)
    delivering.cancel()
    await asyncio.wait({delivering})
    session.bus.send(INFO)
    peer.puback(online.mid)

    assert (await peer.expect(PUBLISH)).topic == INFO.topic


async def test_nothing_is_sent_after_the_goodbye(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    await session.online()
    closing = asyncio.create_task(session.bus.close())
    offline = await peer.expect(PUBLISH)
    sent = session.bus.send(MARK)
    peer.puback(offline.mid)
    await closing

    assert not sent


async def test_a_version_that_worked_is_not_given_up_for_one_lost_connection(
    scripted: ScriptedBroker, start: Start
) -> None:
    start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    peer.close()
    peer = await scripted.accept()
    await peer.connect(None)
    peer.close()

    assert await _next_version(scripted) == "5"


async def test_a_message_at_qos_0_needs_no_ack_for_those_after_it(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    peer.publish(TEXT, b"1")
    peer.publish(TEXT, b"2", mid=12)
    await session.deliveries.get()
    (await session.deliveries.get()).ack()

    assert (await peer.expect(PUBACK)).mid == 12


async def test_a_delivery_that_the_broker_refuses_raises(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    delivering = asyncio.create_task(session.bus.deliver(FINAL))
    peer.puback((await peer.expect(PUBLISH)).mid, NOT_AUTHORIZED)

    with pytest.raises(BusError, match="Not authorized"):
        await delivering


async def test_no_more_is_under_way_than_the_broker_takes(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.connect(properties=RECEIVE_MAXIMUM_1)
    await peer.subscribe()
    online = await peer.expect(PUBLISH)
    delivering = asyncio.create_task(session.bus.deliver(FINAL))
    await session.online()
    await asyncio.sleep(0)
    session.bus.send(MARK)  # passes a window that is full, so comes before the delivery
    topics = [(await peer.expect(PUBLISH)).topic]
    peer.puback(online.mid)
    final = await peer.expect(PUBLISH)
    peer.puback(final.mid)
    await delivering

    assert [*topics, final.topic] == [MARK.topic, FINAL.topic]


async def test_a_puback_is_not_taken_for_a_qos_0_message_of_its_number(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    await session.online()
    delivering = asyncio.create_task(session.bus.deliver(FINAL))
    mid = (await peer.expect(PUBLISH)).mid
    now = session.bus._connection
    assert now is not None
    client = now._network._client
    assert client is not None
    client._last_mid = mid - 1  # as after 65,535 messages
    session.bus.send(MARK)
    await peer.expect(PUBLISH)
    peer.publish(TEXT, b"hi")  # read, and so told, after the mark was written
    await session.deliveries.get()
    was_done = delivering.done()
    peer.puback(mid)
    await delivering

    assert not was_done


async def test_a_flood_at_qos_0_waits_at_the_broker_until_it_is_handled(
    scripted: ScriptedBroker, start: Start, version: Version
) -> None:
    session = start(scripted.port, protocol=version)
    peer = await scripted.accept()
    await peer.bring_online()
    sent, size = 0, (1 << 20) - 256  # a packet has some bytes more

    async def flood() -> None:
        nonlocal sent
        while sent < 200:
            peer.publish(TEXT, bytes(size))
            sent += 1
            await peer.writer.drain()

    flooding = asyncio.create_task(flood())
    held = [await session.deliveries.get() for _ in range(INBOUND_HIGH // size + 1)]
    _, stuck = await asyncio.wait({flooding}, timeout=0.3)
    most = len(held) + session.deliveries.qsize()
    for delivery in held:
        delivery.ack()
    while not flooding.done() or not session.deliveries.empty():
        (await session.deliveries.get()).ack()
        await asyncio.sleep(0)

    assert stuck
    assert most <= INBOUND_HIGH // size + 2


async def test_a_link_lives_on_while_nothing_more_is_read(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    session.bus._settings = session.bus._settings.model_copy(update={"keepalive_s": 1})
    peer = await scripted.accept()
    await peer.bring_online()
    while not session.bus._inflow.over:
        peer.publish(TEXT, bytes(4 << 20))
        await session.deliveries.get()

    assert (await peer.packet()).kind == PINGREQ


async def test_answers_leave_while_nothing_more_is_read(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    while not session.bus._inflow.over:
        peer.publish(TEXT, bytes(4 << 20))
        await session.deliveries.get()
    session.bus.send(MARK)

    assert (await peer.expect(PUBLISH)).topic == MARK.topic


async def test_it_does_not_connect_while_it_holds_too_much(scripted: ScriptedBroker, start: Start, log: Log) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    held = []
    while not session.bus._inflow.over:
        peer.publish(TEXT, bytes(4 << 20))
        held.append(await session.deliveries.get())
    session.cut()
    await log.event("mqtt.disconnected")
    accepting = asyncio.create_task(scripted.accept())
    _, waiting = await asyncio.wait({accepting}, timeout=0.3)
    for delivery in held:
        delivery.ack()
    await (await accepting).bring_online()

    assert waiting


async def _two_delays(scripted: ScriptedBroker, log: Log) -> list[float]:
    """Play a broker that drops the bus as soon as it is online, twice; return how long it waits after each."""
    delays = []
    for _ in range(2):
        peer = await scripted.accept()
        await peer.bring_online()
        peer.close()
        delays.append((await log.event("mqtt.disconnected"))["retry_in_s"])
    return delays


async def test_a_connection_that_lasted_starts_the_backoff_over(
    scripted: ScriptedBroker, start: Start, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_LASTED_S", 0.0)
    start(scripted.port)

    assert await _two_delays(scripted, log) == [0.05, 0.05]


async def test_a_connection_that_did_not_last_does_not(scripted: ScriptedBroker, start: Start, log: Log) -> None:
    start(scripted.port)

    assert await _two_delays(scripted, log) == [0.05, 0.1]


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_reconnect_leaves_no_descriptor_behind(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port)
    counts = []
    gc.disable()  # it would close them one day
    try:
        for _ in range(4):
            await (await scripted.accept()).bring_online()
            await session.online()
            counts.append(_descriptors())
            session.cut()
    finally:
        gc.enable()

    assert counts[-1] - counts[0] <= 3  # the scripted broker's own ends


async def test_the_network_thread_alone_writes_to_the_socket(
    scripted: ScriptedBroker, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    await session.online()
    now = session.bus._connection
    assert now is not None
    client = now._network._client
    assert client is not None
    writers: set[str] = set()
    write = client._sock_send

    def recording(data: bytes) -> int:
        writers.add(threading.current_thread().name)
        return write(data)

    monkeypatch.setattr(client, "_sock_send", recording)
    session.bus.send(MARK)
    await peer.expect(PUBLISH)

    assert writers == {"mqtt edge-slm-box1"}


async def test_close_disconnects_cleanly_and_last(scripted: ScriptedBroker, start: Start, version: Version) -> None:
    session = start(scripted.port, protocol=version)
    peer = await scripted.accept()
    await peer.bring_online()
    await session.online()
    closing = asyncio.create_task(session.bus.close())
    offline = await peer.expect(PUBLISH)
    peer.puback(offline.mid)
    last = await peer.packet()
    await closing

    assert (offline.topic, last.kind) == ("slm/box1/status", DISCONNECT)


@pytest.mark.parametrize("answers", [None, 0])
async def test_a_cancelled_run_leaves_no_thread(scripted: ScriptedBroker, start: Start, answers: int | None) -> None:
    session = start(scripted.port)
    await (await scripted.accept()).connect(answers)
    await session.stop()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mqtt")]


async def test_a_defect_of_the_client_library_costs_a_connection(
    scripted: ScriptedBroker, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    await session.online()
    now = session.bus._connection
    assert now is not None
    monkeypatch.setattr(now._network._client, "loop", lambda: 1 / 0)
    await (await scripted.accept()).bring_online()
    await session.online()

    assert session.bus.stats.reconnects == 1
