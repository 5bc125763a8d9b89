"""The device that the command line, the demo and the bench ask through, at a real broker."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from agent.client import Client, ClientError, Event, host_and_port, link
from agent.errors import UsageError, UserError
from agent.settings import Mqtt, Tls
from tests.brokers import Broker, free_port
from tests.bus.device import Device as Stranger


def device(port: int, name: str = "dev7", **mqtt: object) -> Client:
    return Client(Mqtt.model_validate({"port": port, **mqtt}), "box1", name)


@asynccontextmanager
async def heard(events: AsyncIterator[Event]) -> AsyncIterator[asyncio.Task[list[Event]]]:
    """Publish a request, and yield who waits for its answer, to the end."""

    async def listen() -> list[Event]:
        return [event async for event in events]

    task = asyncio.create_task(listen())
    await asyncio.sleep(0)  # it publishes before its first await
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def asking(client: Client) -> AbstractAsyncContextManager[asyncio.Task[list[Event]]]:
    """Ask something."""
    return heard(client.ask({"id": "j1", "prompt": "Hi"}))


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """Start a broker whose ACL ties the {client} level to the login, as our documentation recommends."""
    acl = tmp_path / "acl"
    acl.write_text("pattern write slm/+/req/%u/#\npattern read slm/+/res/%u/#\n")
    with Broker(tmp_path, f"acl_file {acl}") as running:
        yield running


async def test_a_broker_that_is_not_there_is_told_so() -> None:
    port = free_port()
    with pytest.raises(ClientError, match=rf"^no broker answers at 127.0.0.1:{port} \(Connection refused\): start one"):
        await device(port).__aenter__()


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
async def test_a_refused_login_is_told_and_not_tried_again(tmp_path: Path, protocol: str) -> None:
    (tmp_path / "passwords").touch()
    with Broker(tmp_path, "allow_anonymous false", f"password_file {tmp_path / 'passwords'}") as broker:
        login = {"username": "dev7", "password": "wrong"}
        refused = r"refuses the login \(Not authorized\): check mqtt.username and its password$"
        with pytest.raises(ClientError, match=refused):
            await device(broker.port, **login, protocol=protocol).__aenter__()
        assert broker.log.count("not authorised") == 1


@pytest.mark.parametrize("key", ["password_file", "ca_file"])
async def test_a_file_that_cannot_be_read_is_told_before_anything_is_sent(tmp_path: Path, key: str) -> None:
    file = tmp_path / "none"
    mqtt = {"username": "dev7", "password_file": file} if key == "password_file" else {"tls": Tls(ca_file=file)}
    with pytest.raises(UserError, match=rf"{key}: cannot use {file}: No such file"):
        await device(free_port(), **mqtt).__aenter__()


async def test_what_is_no_mqtt_broker_is_told_after_both_versions() -> None:
    calls = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        with pytest.raises(ClientError, match=r"does not answer as an MQTT broker"):
            await device(server.sockets[0].getsockname()[1]).__aenter__()
    assert calls == 2


async def test_a_broker_without_tls_is_told_where_tls_was_wanted(broker: Broker) -> None:
    with pytest.raises(ClientError, match=r"^no TLS with 127\.0\.0\.1"):
        await device(broker.port, tls={}).__aenter__()


async def test_a_request_that_the_acl_forbids_is_told(guarded: Broker) -> None:
    async with device(guarded.port, "cli", username="dev7") as client:
        with pytest.raises(ClientError, match=r"refuses messages on slm/box1/req/cli/cancel \(Not authorized\)"):
            await client.cancel("j1")


async def test_whoever_waits_for_an_answer_hears_that_the_connection_is_lost(broker: Broker) -> None:
    async with device(broker.port) as client, asking(client) as waiting:
        await client.cancel("j2")  # acknowledged after the request
        broker.kill()
        with pytest.raises(ClientError, match="was lost"):
            await asyncio.wait_for(waiting, 5)


async def test_whoever_waits_for_an_acknowledgement_hears_that_the_connection_is_lost(broker: Broker) -> None:
    async with device(broker.port) as client:
        broker.freeze()
        async with asking(client) as waiting:
            broker.kill()
            with pytest.raises(ClientError, match="was lost"):
                await asyncio.wait_for(waiting, 5)


async def test_after_the_connection_is_lost_a_request_fails_at_once(broker: Broker) -> None:
    async with device(broker.port) as client:
        async with asking(client) as waiting:
            broker.kill()
            await asyncio.wait([waiting])
        async with asking(client) as late:
            with pytest.raises(ClientError, match="was lost"):
                await asyncio.wait_for(late, 1)
        for late_too in (client.cancel("j1"), client.online(60)):
            with pytest.raises(ClientError, match="was lost"):
                await asyncio.wait_for(late_too, 1)


async def test_an_acknowledgement_that_comes_too_late_is_no_other_requests(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with device(broker.port) as client:
        broker.freeze()
        with monkeypatch.context() as impatient:
            impatient.setattr(link, "_ANSWER_S", 0.05)
            with pytest.raises(ClientError, match="did not acknowledge"):
                await client.cancel("j1")
        broker.thaw()
        await client.cancel("j2")  # acknowledged after the first
        assert client._link._unacknowledged == {}


async def test_a_request_for_a_camera_goes_to_its_image_topic(broker: Broker) -> None:
    with Stranger(broker.port) as box:
        await box.subscribe("slm/box1/req/#")
        async with device(broker.port) as client, heard(client.ask({"id": "j1", "image": "AAAA"}, "door")):
            message = await box.messages.get()
    assert (message.topic, json.loads(message.payload)) == (
        "slm/box1/req/dev7/image/door",
        {"id": "j1", "image": "AAAA"},
    )


async def test_a_raw_frame_is_published_as_it_is(broker: Broker) -> None:
    with Stranger(broker.port) as box:
        await box.subscribe("slm/box1/req/#")
        async with device(broker.port) as client, heard(client.show("door", b"\xff\xd8\xff")):
            message = await box.messages.get()
    assert (message.topic, message.payload) == ("slm/box1/req/dev7/image/door", b"\xff\xd8\xff")


@asynccontextmanager
async def shown(broker: Broker) -> AsyncIterator[tuple[Stranger, asyncio.Task[list[Event]]]]:
    """Show a frame of the camera door; yield who may answer in the box's place, and what is heard of it."""
    with Stranger(broker.port) as box:
        await box.subscribe("slm/box1/req/#")
        async with device(broker.port) as client, heard(client.show("door", b"a frame")) as events:
            await box.messages.get()
            yield box, events


async def say(box: Stranger, job_id: str, kind: str, **body: object) -> None:
    await box.publish(f"slm/box1/res/dev7/{job_id}/{kind}", json.dumps({"id": job_id, **body}).encode())


async def test_the_answer_to_a_frame_is_told_by_its_camera(broker: Broker) -> None:
    async with shown(broker) as (box, events):
        await say(box, "other", "state", state="accepted", camera="yard")
        await say(box, "j1", "state", state="accepted", camera="door")
        await say(box, "other", "chunk", text="no")
        await say(box, "j1", "chunk", text="a red circle")
        await say(box, "j1", "final", state="SUCCEEDED", camera="door")
        assert [(event.kind, event.body["id"]) for event in await events] == [
            ("state", "j1"),
            ("chunk", "j1"),
            ("final", "j1"),
        ]


async def test_a_refused_frame_has_its_final_alone(broker: Broker) -> None:
    async with shown(broker) as (box, events):
        await say(box, "j1", "final", state="REJECTED", camera="door")
        assert [event.kind for event in await events] == ["final"]


async def test_the_end_of_an_earlier_frame_is_not_the_end_of_this_one(broker: Broker) -> None:
    async with shown(broker) as (box, events):
        await say(box, "before", "final", state="SUCCEEDED", camera="door")
        await say(box, "j1", "state", state="accepted", camera="door")
        await say(box, "j1", "final", state="CANCELED", camera="door")
        assert {event.body["id"] for event in await events} == {"j1"}


async def test_whoever_waits_for_the_answer_to_a_frame_hears_that_the_connection_is_lost(broker: Broker) -> None:
    async with device(broker.port) as client, heard(client.show("door", b"a frame")) as events:
        await client.cancel("j2")  # acknowledged after the frame
        broker.kill()
        with pytest.raises(ClientError, match="was lost"):
            await asyncio.wait_for(events, 5)
        assert client._frames == {}


async def test_a_request_larger_than_the_broker_takes_is_told_before_it_costs_the_connection(tmp_path: Path) -> None:
    with Broker(tmp_path, "max_packet_size 2000") as broker:
        async with device(broker.port) as client:
            async with heard(client.show("door", bytes(2000))) as events:
                with pytest.raises(ClientError, match=r"2,\d\d\d bytes and the broker at .* takes at most 2,000"):
                    await events
            await client.cancel("j1")


async def test_a_box_that_was_never_there_is_told(broker: Broker) -> None:
    async with device(broker.port) as client:
        with pytest.raises(ClientError, match="the box box1 has never been seen at this broker"):
            await client.online(0.05)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("broker.lan", ("broker.lan", 1883)),
        ("broker.lan:8883", ("broker.lan", 8883)),
        ("[::1]", ("::1", 1883)),
        ("[::1]:1884", ("::1", 1884)),
    ],
)
def test_a_named_broker_is_read(text: str, address: tuple[str, int]) -> None:
    assert host_and_port(text) == address


@pytest.mark.parametrize(
    "text", ["", "broker:", ":1883", "::1", "broker:mqtt", "broker:0", "broker:65536", "mqtt://broker", "a b"]
)
def test_what_is_no_broker_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        host_and_port(text)
