"""Brokers that throw us out, refuse, fall silent or forget: mosquitto where it can be brought to it."""

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.bus import BusError, TryLaterError, connection, patience
from agent.bus import session as session_module
from agent.contract.messages import Outgoing
from tests.brokers import Broker
from tests.bus.conftest import Log, Session, Version
from tests.bus.device import Device
from tests.bus.scripted import DISCONNECT, PUBLISH, ScriptedBroker

Start = Callable[..., Session]
FINAL = Outgoing("slm/box1/res/dev7/j1/final", b"{}")
MARK = Outgoing("slm/box1/metrics", b"{}", qos=0)
OTHER = Outgoing("slm/box1/res/dev7/j2/final", b"{}")

SUBSCRIPTION_REFUSED = 0x80
SESSION_TAKEN_OVER = b"\x8e\0"
# What a PUBACK may say that time can heal, and what it cannot.
PASSING = [0x80, 0x83, 0x91, 0x97]
LASTING = [0x87, 0x90, 0x99]


async def _taken_over(scripted: ScriptedBroker) -> None:
    """Play a broker to which another client of our name comes."""
    peer = await scripted.accept()
    await peer.bring_online()
    peer.send(DISCONNECT, SESSION_TAKEN_OVER)
    peer.close()


async def test_a_client_of_our_name_is_named_and_not_fought(scripted: ScriptedBroker, start: Start, log: Log) -> None:
    start(scripted.port, protocol="5")
    await _taken_over(scripted)
    said = await log.event("mqtt.disconnected")

    assert said["reason"].startswith("another client has connected as edge-slm-box1")
    assert said["retry_in_s"] >= 30


async def test_close_ends_the_wait_for_the_other_client(scripted: ScriptedBroker, start: Start, log: Log) -> None:
    session = start(scripted.port, protocol="5")
    await _taken_over(scripted)
    await log.event("mqtt.disconnected")
    await session.bus.close()
    await session.running

    assert not session.bus.connected


async def test_where_the_broker_does_not_tell_of_the_other_client_our_log_names_it_soon(
    broker: Broker, start: Start, version: Version, log: Log
) -> None:
    # mosquitto 2.0.11 just closes the older connection, on MQTT 5 too.
    start(broker.port, protocol=version)
    start(broker.port, protocol=version)
    reasons = [(await log.event("mqtt.disconnected"))["reason"] for _ in range(6)]

    assert any("another client connects as edge-slm-box1" in reason for reason in reasons)


async def _refused(scripted: ScriptedBroker, start: Start, code: int) -> tuple[Session, asyncio.Task[None]]:
    """Have a final refused by its PUBACK."""
    session = start(scripted.port)
    peer = await scripted.accept()
    await peer.bring_online()
    delivering = asyncio.create_task(session.bus.deliver(FINAL))
    peer.puback((await peer.expect(PUBLISH)).mid, code)
    return session, delivering


@pytest.mark.parametrize("code", PASSING)
async def test_a_refusal_that_may_pass_is_to_be_tried_later(scripted: ScriptedBroker, start: Start, code: int) -> None:
    session, delivering = await _refused(scripted, start, code)

    with pytest.raises(TryLaterError, match="does not take slm/box1/res/dev7/j1/final now"):
        await delivering
    assert session.bus.stats.undelivered == 0


@pytest.mark.parametrize("code", LASTING)
async def test_a_refusal_that_will_not_pass_is_counted(scripted: ScriptedBroker, start: Start, code: int) -> None:
    session, delivering = await _refused(scripted, start, code)

    with pytest.raises(BusError) as refusal:
        await delivering
    assert (type(refusal.value), session.bus.stats.undelivered) == (BusError, 1)


async def test_an_acl_that_keeps_answers_in_is_named(tmp_path: Path, start: Start) -> None:
    (tmp_path / "acl").write_text("topic read slm/box1/#\ntopic write slm/box1/status\n")
    with Broker(tmp_path, f"acl_file {tmp_path / 'acl'}") as broker:
        session = start(broker.port, protocol="5")
        await session.online()
        with pytest.raises(
            BusError, match=r"j1/final \(Not authorized\): allow edge-slm to write there in the broker's"
        ):
            await session.bus.deliver(FINAL)


async def test_what_is_owed_goes_out_where_the_subscription_is_refused(
    scripted: ScriptedBroker, start: Start, version: Version
) -> None:
    session = start(scripted.port, protocol=version)
    delivering = asyncio.create_task(session.bus.deliver(FINAL))
    peer = await scripted.accept()
    await peer.connect()
    await peer.subscribe(1, SUBSCRIPTION_REFUSED, 1)
    packet = await peer.expect(PUBLISH)
    connected = session.bus.connected
    peer.puback(packet.mid)
    await delivering

    assert (packet.topic, connected) == (FINAL.topic, False)


async def test_the_subscription_is_tried_again_after_a_while_of_answering(
    scripted: ScriptedBroker, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_ANSWERING_S", 0.05)
    session = start(scripted.port)
    delivering = asyncio.create_task(session.bus.deliver(FINAL))
    peer = await scripted.accept()
    await peer.connect()
    await peer.subscribe(1, SUBSCRIPTION_REFUSED, 1)
    await (await scripted.accept()).bring_online()
    await session.online()

    assert session.bus.connected
    delivering.cancel()


async def test_what_ends_three_connections_is_sent_alone_on_the_third(scripted: ScriptedBroker, start: Start) -> None:
    session = start(scripted.port, protocol="3.1.1")
    both = [asyncio.create_task(session.bus.deliver(each)) for each in (FINAL, OTHER)]
    for _ in range(2):
        peer = await scripted.accept()
        await peer.bring_online()
        await peer.expect(PUBLISH)
        await peer.expect(PUBLISH)
        peer.close()
    peer = await scripted.accept()
    await peer.bring_online()
    alone = await peer.expect(PUBLISH)
    await session.online()
    session.bus.send(MARK)
    mark = await peer.expect(PUBLISH)
    peer.puback(alone.mid)
    behind = await peer.expect(PUBLISH)
    peer.puback(behind.mid)
    await asyncio.gather(*both)

    assert [each.topic for each in (alone, mark, behind)] == [FINAL.topic, MARK.topic, OTHER.topic]


async def test_what_ends_every_connection_at_any_size_lets_the_others_pass(
    scripted: ScriptedBroker, start: Start
) -> None:
    session = start(scripted.port, protocol="3.1.1")
    poison, other = (asyncio.create_task(session.bus.deliver(each)) for each in (FINAL, OTHER))
    for _ in range(3):
        peer = await scripted.accept()
        await peer.bring_online()
        await peer.expect(PUBLISH)
        peer.close()
    peer = await scripted.accept()
    await peer.bring_online()
    peer.puback((await peer.expect(PUBLISH)).mid)
    await other
    with pytest.raises(TryLaterError, match="ends the connection upon it, even at"):
        await poison

    assert session.bus.max_packet is None


async def test_a_broker_that_says_that_a_packet_was_too_large_is_believed(
    scripted: ScriptedBroker, start: Start
) -> None:
    session = start(scripted.port, protocol="5")
    large = Outgoing(FINAL.topic, bytes(5000))
    delivering = asyncio.create_task(session.bus.deliver(large, lambda most, _packet: bytes(most)))
    peer = await scripted.accept()
    await peer.bring_online()
    await peer.expect(PUBLISH)
    peer.send(DISCONNECT, b"\x95\0")
    peer.close()
    peer = await scripted.accept()
    await peer.bring_online()
    cut = await peer.expect(PUBLISH)
    peer.puback(cut.mid)
    await delivering

    assert 2400 < len(cut.body) <= 2600
    assert session.bus.stats.shortened == 1


async def test_a_silent_broker_is_left_within_one_and_a_half_keepalives(broker: Broker, start: Start, log: Log) -> None:
    session = start(broker.port)
    session.bus._settings = session.bus._settings.model_copy(update={"keepalive_s": 2})
    await session.online()
    since = asyncio.get_running_loop().time()
    broker.freeze()
    said = await log.event("mqtt.disconnected")
    took = asyncio.get_running_loop().time() - since
    broker.thaw()

    assert "silent" in said["reason"]
    assert took < 1.5 * 2 + 0.5


async def test_a_broker_that_stays_silent_for_twenty_rounds_costs_no_thread_and_no_socket(
    broker: Broker, start: Start, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNACK_WAIT_S", 0.02)
    monkeypatch.setattr(patience, "_MOST_S", 0.1)
    session = start(broker.port, protocol="5")
    await session.online()
    before = _held()
    broker.freeze()
    session.cut()
    gc.disable()  # it would close them one day
    try:
        for _ in range(20):
            said = await log.event("mqtt.connect_failed")
        during = _held()
    finally:
        gc.enable()
        broker.thaw()
    monkeypatch.setattr(connection, "CONNACK_WAIT_S", 5.0)
    await session.online()
    await session.bus.deliver(FINAL)

    assert "did not answer MQTT 5 within" in said["reason"]
    assert during[0] <= before[0]
    assert during[1] <= before[1] + 1


def _held() -> tuple[int, int]:
    """Return how many descriptors this process holds, and how many network threads."""
    threads = [each for each in threading.enumerate() if each.name.startswith("mqtt")]
    return len(list(Path("/proc/self/fd").iterdir())), len(threads)


async def test_every_subscription_and_delivery_is_made_anew_at_a_broker_that_forgot_us(
    broker: Broker, start: Start, version: Version
) -> None:
    session = start(broker.port, protocol=version)
    await session.online()
    broker.freeze()
    delivering = asyncio.create_task(session.bus.deliver(Outgoing(FINAL.topic, b"{}", retain=True)))
    broker.kill()
    for file in broker._log.parent.glob("*.db"):
        file.unlink()
    broker.start()
    await delivering
    with Device(broker.port) as device:
        await device.publish("slm/box1/req/dev7/text", b"hi")
        await device.subscribe(FINAL.topic)
        assert await device.payload() == b"{}"

    assert (await session.deliveries.get()).message.payload == b"hi"
