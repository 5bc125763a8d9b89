"""A broker that does not take a final whole, as it came from mosquitto: said in CONNACK, shown, or kept quiet about."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.bus import patience
from agent.settings import Settings
from agent.testing import FakeEngine
from tests.brokers import Broker
from tests.devices import Device
from tests.service.conftest import Start
from tests.waiting import eventually

# One final of 12 kB, where the broker takes 2 kB.
LONG = ["Hello ", "é" * 3000, "\n" * 3000]
SHORT = ["Hello"]


@pytest.fixture
def limits() -> tuple[str, ...]:
    return ("max_packet_size 2000",)


@pytest.fixture
def broker(tmp_path: Path, limits: tuple[str, ...]) -> Iterator[Broker]:
    directory = tmp_path / "broker"
    directory.mkdir()
    with Broker(directory, *limits) as running:
        yield running


@pytest.fixture
def speak(settings: Settings) -> Callable[[str], dict[str, object]]:
    """Have the box speak a version of MQTT."""
    return lambda version: {"mqtt": settings.mqtt.model_copy(update={"protocol": version})}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_S", 0.02)


async def test_a_final_is_cut_to_what_the_broker_takes(start: Start, device: Device) -> None:
    async with start(FakeEngine(words=LONG)):
        device.publish("text", {"id": "j1", "prompt": "x"})
        final = await device.final("j1")
    size = len(next(heard.payload for heard in device.heard if heard.topic.endswith("/final")))
    assert (final["truncated"], "2,000 bytes" in final["notice"]) == (True, True)
    assert "".join(LONG).startswith(final["text"])
    assert 1900 < size <= 2000


async def test_a_final_that_fits_is_not_cut(start: Start, device: Device) -> None:
    async with start(FakeEngine(words=SHORT)):
        device.publish("text", {"id": "j1", "prompt": "x"})
        final = await device.final("j1")
    assert (final["text"], "truncated" in final) == ("Hello", False)


async def test_a_broker_that_takes_more_gets_more_of_the_same_final(
    tmp_path: Path, start: Start, settings: Settings, broker: Broker
) -> None:
    async with Device(broker.port) as device, start(FakeEngine(words=LONG)):
        device.publish("text", {"id": "j1", "prompt": "x"})
        await device.final("j1")
    (tmp_path / "other").mkdir()
    with Broker(tmp_path / "other") as other:
        elsewhere = {"mqtt": settings.mqtt.model_copy(update={"port": other.port})}
        async with Device(other.port) as device, start(FakeEngine(words=["new"]), **elsewhere):
            device.publish("text", {"id": "j1", "prompt": "x"})
            final = await device.final("j1")
    assert (final["text"], "truncated" in final) == ("".join(LONG), False)


@pytest.mark.parametrize("limits", [("max_packet_size 300",)])
async def test_a_final_that_cannot_be_cut_enough_is_counted_and_blocks_no_other(start: Start, broker: Broker) -> None:
    async with Device(broker.port) as device, start(FakeEngine(words=SHORT)) as service:
        device.publish("text", {"id": "j1", "prompt": "x"})
        await eventually(lambda: service.bus.stats.undelivered == 1)
        await service.outbox.flush()
        assert (service.bus.connected, device.of("j1", "final")) == (True, [])


@pytest.mark.parametrize(
    ("limits", "spoken"),
    [(("max_packet_size 2000",), "3.1.1"), (("message_size_limit 2000",), "5")],
)
async def test_a_broker_that_closes_the_connection_instead_of_saying_so_gets_a_cut_final(
    start: Start, broker: Broker, speak: Callable[[str], dict[str, object]], spoken: str
) -> None:
    async with Device(broker.port) as device, start(FakeEngine(words=LONG), **speak(spoken)) as service:
        # Chunks that are too large end the connection as well.
        device.publish("text", {"id": "j1", "prompt": "x", "stream": False})
        final = await device.final("j1")
        assert (final["truncated"], len(final["text"]) > 100) == (True, True)
        assert service.bus.stats.reconnects <= 6


async def test_the_finals_behind_one_that_is_too_large_arrive_whole(
    start: Start, broker: Broker, speak: Callable[[str], dict[str, object]]
) -> None:
    engine = FakeEngine(slots=4)
    async with Device(broker.port) as device, start(engine, **speak("3.1.1")):
        names = ["big", "b", "c"]
        for name in names:
            device.publish("text", {"id": name, "prompt": "x", "stream": False})
        for name in names:
            attempt = await engine.attempt(("dev7", name))  # type: ignore[arg-type]
            attempt.start()
            attempt.say(*(LONG if name == "big" else SHORT))
            attempt.finish()
        finals = [await device.final(name) for name in names]
    assert ["truncated" in final for final in finals] == [True, False, False]
