"""The link, with a device in the agent's place: what it reads along, and how it disturbs."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from agent.contract.jobs import Key
from tests.brokers import Broker
from tests.chaos.history import History
from tests.chaos.packets import Decoder
from tests.chaos.proxy import Link
from tests.devices import VERSIONS, Device

KEY = Key("dev7", "j1")


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
async def link(broker: Broker, history: History) -> AsyncIterator[Link]:
    async with Link(broker.port, history) as found:
        yield found


@pytest.fixture
async def agent(link: Link, version: str) -> AsyncIterator[Device]:
    async with Device(link.port, "agent", version, also=("slm/box1/req/#",), keep=True) as found:
        yield found


@pytest.fixture
async def device(broker: Broker, version: str) -> AsyncIterator[Device]:
    async with Device(broker.port, version=version) as found:
        yield found


async def test_a_request_that_the_agent_acknowledged_is_known(agent: Device, device: Device, history: History) -> None:
    device.publish("text", {"id": "j1", "prompt": "Hi"})
    device.publish("text", {"id": "j2", "prompt": "Hi"})
    await agent.until(lambda: len(agent.heard) == 2)
    await passed(agent, device)
    assert history.acknowledged >= {KEY, Key("dev7", "j2")}


@pytest.mark.parametrize("version", ["5"])
async def test_a_frame_is_known_by_its_correlation_data(agent: Device, device: Device, history: History) -> None:
    device.publish("image/porch", b"\xff\xd8\xff", UserProperty=("max_tokens", "4"), CorrelationData=b"j1")
    await agent.until(lambda: agent.heard != [])
    await passed(agent, device)
    assert KEY in history.acknowledged


async def test_a_final_that_the_broker_acknowledged_is_known(agent: Device, device: Device, history: History) -> None:
    answer(agent, "final")
    await device.final("j1")
    await passed(agent, device)
    assert KEY in history.taken


async def test_an_event_is_kept_with_its_connection(
    agent: Device, device: Device, history: History, link: Link
) -> None:
    answer(agent, "chunk", attempt=1)
    await device.until(lambda: device.of("j1", "chunk") != [])
    link.cut()
    answer(agent, "state", attempt=2)  # paho keeps it until it is back
    await device.until(lambda: device.of("j1", "state") != [])
    found = [(told.kind, told.body, told.connection) for told in history.sent]
    assert found == [("chunk", {"attempt": 1}, 1), ("state", {"attempt": 2}, 2)]


async def test_a_black_hole_lets_nothing_through_and_is_known_to_have_been_told(
    agent: Device, device: Device, history: History, link: Link
) -> None:
    with link.black_hole():
        answer(agent, "final")
        device.publish("text", {"id": "j2", "prompt": "Hi"})
        async with asyncio.timeout(5):
            while not history.sent:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # a history offers nothing to wait on
        assert (device.heard, agent.heard, history.taken) == ([], [], {})
    await device.final("j1")
    await agent.until(lambda: agent.heard != [])


async def test_a_link_is_open_as_long_as_there_is_a_connection(broker: Broker, history: History) -> None:
    async with Link(broker.port, history) as link:
        opened = asyncio.create_task(link.opened())
        await asyncio.sleep(0)
        assert not opened.done()
        async with Device(link.port, "agent"):
            await opened
        async with asyncio.timeout(5):
            while link._is_open.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the end of a connection offers nothing to wait on


async def test_a_half_closed_link_is_lost_for_both(agent: Device, device: Device, history: History, link: Link) -> None:
    link.half_close()
    answer(agent, "final")
    await device.final("j1")
    assert {told.connection for told in history.sent} >= {2}


@pytest.mark.parametrize("how", ["delayed", "trickling"])
async def test_a_slow_link_changes_nothing_that_it_carries(agent: Device, device: Device, link: Link, how: str) -> None:
    with link.delayed(0.1) if how == "delayed" else link.trickling():
        answer(agent, "final", text="words " * 20)
        assert await device.final("j1") == {"text": "words " * 20}


def test_packets_are_read_whatever_pieces_they_come_in() -> None:
    data = bytes([0x32, 0x80, 0x01]) + bytes(128) + bytes([0x40, 2, 0, 7])
    decoder = Decoder()
    packets = [packet for byte in data for packet in decoder.feed(bytes([byte]))]
    assert [(packet.kind, packet.flags, len(packet.body)) for packet in packets] == [(3, 2, 128), (4, 0, 2)]


def answer(agent: Device, kind: str, **body: object) -> None:
    """Have the agent publish an event of the job."""
    agent._client.publish(f"slm/box1/res/dev7/j1/{kind}", json.dumps(body), 1 if kind != "chunk" else 0)


async def passed(agent: Device, device: Device) -> None:
    """Let what the two parties have sent so far pass the proxy: what is said later comes later."""
    agent._client.publish("slm/box1/res/dev7/passed/final", "{}", 1)
    await device.final("passed")
    device.publish("text", {"id": "passed", "prompt": "Hi"})
    await agent.until(lambda: any(heard.body["id"] == "passed" for heard in agent.heard if heard.payload[:1] == b"{"))
