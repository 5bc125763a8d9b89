"""Which broker the demo starts, and how."""

import asyncio
import importlib.util
import socket
from pathlib import Path

import pytest

from agent.demo import brokers
from agent.demo.children import DemoError


@pytest.fixture
def no_mosquitto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "find_mosquitto", lambda: None)


def test_mosquitto_is_preferred(tmp_path: Path) -> None:
    assert brokers.choose(tmp_path).name == "mosquitto"


def test_mosquitto_is_found_although_the_path_of_an_ordinary_user_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert brokers.find_mosquitto() is not None


@pytest.mark.usefixtures("no_mosquitto")
def test_without_mosquitto_the_broker_that_pip_installs_is_used(tmp_path: Path) -> None:
    assert brokers.choose(tmp_path).name == "iotcore"


@pytest.mark.usefixtures("no_mosquitto")
def test_without_any_broker_the_user_is_told_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DemoError, match="install mosquitto"):
        brokers.choose(tmp_path)


def test_the_port_is_another_one_if_mqtts_own_is_taken() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 1883))
            taken.listen()
        except OSError:
            pass  # somebody else's broker serves the purpose
        assert brokers.free_port() != 1883


async def test_a_broker_that_cannot_listen_is_reported_with_its_own_words(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        launch = brokers.mosquitto(str(brokers.find_mosquitto()), tmp_path, taken.getsockname()[1])
        with pytest.raises(DemoError, match="Address already in use"):
            await brokers.start(launch, tmp_path / "log")


async def test_the_broker_that_pip_installs_listens_on_the_loopback_alone(tmp_path: Path) -> None:
    launch = brokers.iotcore(tmp_path, brokers.free_port())
    broker = await brokers.start(launch, tmp_path / "log")
    try:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.2", launch.address.port)
    finally:
        await broker.stop(grace_s=5)
