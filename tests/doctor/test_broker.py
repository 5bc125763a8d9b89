"""The broker, as the doctor tries it."""

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.doctor.broker import broker as check
from agent.doctor.finding import Finding
from agent.settings import Device, Mqtt, Settings
from tests.brokers import Broker, free_port


def _found(port: int, answer_s: float = 2, **mqtt: object) -> Finding:
    settings = Settings(device=Device(id="box1"), mqtt=Mqtt.model_validate({"port": port, **mqtt}))
    (finding,) = check(settings, answer_s)
    return finding


@pytest.fixture
def silent() -> Iterator[int]:
    """Open a port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """Start a broker that lets box1 in, to write under its name and read nothing."""
    passwords, acl = tmp_path / "passwords", tmp_path / "acl"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "box1", "right"], check=True)
    acl.write_text("user box1\ntopic write slm/box1/#\n")
    lines = ("allow_anonymous false", f"password_file {passwords}", f"acl_file {acl}")
    with Broker(tmp_path, *lines) as running:
        yield running


@pytest.mark.parametrize(("protocol", "spoken"), [("auto", "5"), ("5", "5"), ("3.1.1", "3.1.1")])
def test_a_broker_that_brings_back_what_is_published_is_well(broker: Broker, protocol: str, spoken: str) -> None:
    found = _found(broker.port, protocol=protocol)
    assert found == Finding(
        "broker",
        "well",
        f"127.0.0.1:{broker.port} answers MQTT {spoken}, and brings back what is published as this box",
    )


def test_nothing_is_left_at_the_broker(broker: Broker) -> None:
    _found(broker.port)
    assert "r1" not in broker.log  # a retained publish


def test_a_wrong_password_is_told(guarded: Broker) -> None:
    found = _found(guarded.port, username="box1", password="wrong")  # noqa: S106
    assert found.text == (
        f"127.0.0.1:{guarded.port} refuses the login (Not authorized): check mqtt.username and its password"
    )
    assert found.stops


def test_an_acl_that_lets_subscribe_and_sends_nothing_is_told(guarded: Broker) -> None:
    found = _found(guarded.port, 0.5, username="box1", password="right")  # noqa: S106
    assert found.text == (
        f"127.0.0.1:{guarded.port} does not bring back what this box publishes: "
        "allow this login to read and write slm/box1/# in the broker's ACL"
    )


def test_a_broker_that_is_not_there_is_told() -> None:
    port = free_port()
    assert _found(port).text == (
        f"127.0.0.1:{port} cannot be reached (Connection refused): check mqtt.host, mqtt.port and the network"
    )


def test_a_host_without_an_address_is_told() -> None:
    assert "has no address" in _found(1883, host="nobody.invalid").text


def test_a_name_with_many_addresses_behind_a_firewall_is_told_in_time(behind_a_firewall: int) -> None:
    begun = time.monotonic()
    found = _found(behind_a_firewall, 0.2, host="broker.example")
    assert time.monotonic() - begun < 0.2 * 4
    assert (found.mark, found.stops) == ("wrong", True)
    assert "cannot be reached (no answer)" in found.text


def test_a_port_that_never_answers_is_told_within_two_waits(silent: int) -> None:
    assert _found(silent, 0.1).text == (
        f"127.0.0.1:{silent} gives no answer to CONNECT: check that a broker is at mqtt.port, and whether it wants TLS"
    )


def test_tls_with_a_broker_that_speaks_none_is_told(broker: Broker) -> None:
    assert "check mqtt.port and mqtt.tls" in _found(broker.port, tls={}).text


def test_a_broker_of_an_unknown_authority_is_told(tmp_path: Path) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem")
    subprocess.run(["openssl", "req", "-x509", *key, *files, "-subj", "/CN=127.0.0.1"], check=True, capture_output=True)
    with Broker(tmp_path, f"certfile {tmp_path}/cert.pem", f"keyfile {tmp_path}/key.pem") as running:
        found = _found(running.port, tls={})
    assert "is not trusted" in found.text
    assert "CERTIFICATE_VERIFY_FAILED" in found.text


def test_a_password_file_that_is_not_there_is_told_by_its_key() -> None:
    found = _found(1883, username="box1", password_file="/absent")  # noqa: S106
    assert found.text.startswith("mqtt.password_file: cannot use")
