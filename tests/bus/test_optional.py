"""A subscription that the session does without, where the broker refuses it."""

from collections.abc import Callable

from agent.bus import Subscription
from agent.contract.messages import Outgoing
from tests.bus.conftest import TOPICS, Log, Session, Version
from tests.bus.scripted import PUBLISH, SUBSCRIBE, Peer, ScriptedBroker

Start = Callable[..., Session]
WANTED = Subscription(TOPICS.config_desired, retained=True, optional=True)
REFUSED = 0x80
MARK = Outgoing(TOPICS.metrics, b"{}", qos=0)


async def online(scripted: ScriptedBroker) -> Peer:
    """Play a broker until its client is online."""
    peer = await scripted.accept()
    await peer.bring_online()
    return peer


async def test_it_is_asked_for_apart_and_its_answer_is_not_waited_for(
    scripted: ScriptedBroker, start: Start, version: Version
) -> None:
    session = start(scripted.port, protocol=version, also=[WANTED])
    peer = await online(scripted)
    asked = await peer.expect(SUBSCRIBE)
    await session.online()
    assert (session.bus.connected, WANTED.filter.encode() in asked.body) == (True, True)


async def test_a_refusal_is_told_once_and_keeps_nobody_offline(
    scripted: ScriptedBroker, start: Start, version: Version, log: Log
) -> None:
    session = start(scripted.port, protocol=version, also=[WANTED])
    peer = await online(scripted)
    await peer.subscribe(REFUSED)
    told = await log.event("mqtt.subscription_refused")
    assert (session.bus.connected, f"{WANTED.filter}: allow it in the broker's ACL" in told["reason"]) == (True, True)

    peer.close()
    peer = await online(scripted)
    await peer.subscribe(REFUSED)
    peer.close()
    later: list[str] = []
    while later.count("mqtt.disconnected") < 2:
        later.append((await log.next())["event"])
    assert "mqtt.subscription_refused" not in later


async def test_a_broker_that_ends_the_connection_upon_it_twice_is_not_asked_again(
    scripted: ScriptedBroker, start: Start, version: Version, log: Log
) -> None:
    session = start(scripted.port, protocol=version, also=[WANTED])
    for _ in range(2):
        peer = await online(scripted)
        await peer.expect(SUBSCRIBE)
        peer.close()
    told = await log.event("mqtt.subscription_refused")
    peer = await online(scripted)
    session.bus.send(MARK)
    assert (WANTED.filter in told["reason"], (await peer.packet()).kind) == (True, PUBLISH)


async def test_a_link_that_is_cut_just_then_costs_nothing(scripted: ScriptedBroker, start: Start) -> None:
    start(scripted.port, also=[WANTED])
    for _ in range(2):
        peer = await online(scripted)
        await peer.expect(SUBSCRIBE)
        peer.close()
        peer = await online(scripted)
        await peer.subscribe(1)
        peer.close()
    await (await online(scripted)).expect(SUBSCRIBE)
