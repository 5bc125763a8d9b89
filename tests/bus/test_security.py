"""Login and TLS against a real mosquitto."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.bus import BusError, MqttBus
from agent.contract.topics import Topics
from agent.settings import Mqtt, Tls
from tests.brokers import Broker
from tests.bus.conftest import Log, Session

Start = Callable[..., Session]


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with an authority, ca.pem, and broker.pem and box.pem signed by it, each with its key."""
    pki = tmp_path_factory.mktemp("pki")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl(pki, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    for name in ("broker", "box"):
        _openssl(
            pki, "req", "-x509", *key, "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", f"{name}.key",
            "-out", f"{name}.pem", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE",
        )  # fmt: skip
    return pki


@pytest.fixture
def tls_broker(pki: Path, tmp_path: Path) -> Iterator[Broker]:
    """Start a broker that talks to those alone who bring a certificate of the authority."""
    files = (f"cafile {pki}/ca.pem", f"certfile {pki}/broker.pem", f"keyfile {pki}/broker.key")
    with Broker(tmp_path, *files, "require_certificate true") as broker:
        yield broker


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    """Write a mosquitto password file: box1's is `right`."""
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "box1", "right"], check=True, capture_output=True)
    return passwords


async def test_it_connects_by_mutual_tls(tls_broker: Broker, start: Start, pki: Path) -> None:
    tls = Tls(ca_file=pki / "ca.pem", cert_file=pki / "box.pem", key_file=pki / "box.key")
    session = start(tls_broker.port, tls=tls)

    await session.online()


async def test_a_broker_of_an_unknown_authority_is_not_talked_to(tls_broker: Broker, start: Start, log: Log) -> None:
    start(tls_broker.port, tls=Tls())

    assert "certificate verify failed" in (await log.event("mqtt.connect_failed"))["reason"]


async def test_the_password_file_is_read_at_each_connect(
    tmp_path: Path, passwords: Path, start: Start, log: Log
) -> None:
    password_file = tmp_path / "password"
    password_file.write_text("wrong\n")
    with Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}") as broker:
        session = start(broker.port, username="box1", password_file=password_file)
        refused = await log.event("mqtt.connect_failed")
        password_file.write_text("right\n")
        await session.online()

    assert "refuses the login" in refused["reason"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"username": "a", "password_file": "/absent"}, "mqtt.password_file: cannot use /absent: No such file"),
        ({"password": "secret"}, "mqtt.password without mqtt.username"),
        ({"tls": {"ca_file": "/absent"}}, "mqtt.tls.ca_file: cannot use /absent: No such file"),
        ({"tls": {"ca_file": "/etc/hostname"}}, "mqtt.tls.ca_file: cannot use /etc/hostname: "),
        ({"tls": {"cert_file": "/absent", "key_file": "/absent"}}, "mqtt.tls.cert_file .*: No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_at_construction(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(BusError, match=sentence):
        MqttBus(Mqtt.model_validate(settings), Topics("slm", "box1"), [], receive=lambda _: None)


def test_an_encrypted_key_is_told_and_not_asked_for(pki: Path, tmp_path: Path) -> None:
    key = tmp_path / "encrypted.key"
    _openssl(pki, "ec", "-in", "box.key", "-aes128", "-passout", "pass:secret", "-out", str(key))
    tls = Tls(cert_file=pki / "box.pem", key_file=key)

    with pytest.raises(BusError, match="cert_file and key_file"):
        MqttBus(Mqtt(tls=tls), Topics("slm", "box1"), [], receive=lambda _: None)
