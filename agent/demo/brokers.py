"""A broker for the demo: the one named, or mosquitto if it is installed, or the one that pip installed."""

import asyncio
import importlib.util
import os
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.demo.children import Child, DemoError, while_alive

_HOST = "127.0.0.1"
_PORT = 1883
_READY_S = 10.0
# An 8 MiB picture, the largest that the agent takes by default, in base64, and its topic. rumqttd's own is 20 KB.
_LARGEST_PAYLOAD = 12 << 20


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is, and which MQTT it speaks: ``auto`` is for one that speaks, or refuses, both."""

    host: str
    port: int
    protocol: Literal["auto", "5"] = "auto"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a broker.

    Attributes:
        name: of the program.
        command: it and its arguments.
        config: its configuration file, and what is to be in it.
        address: where it will be.
        limits: what it cannot do, for the user.

    """

    name: str
    command: tuple[str, ...]
    config: tuple[Path, str]
    address: Address
    limits: str

    def write_config(self) -> None:
        """Write the configuration file."""
        path, text = self.config
        path.write_text(text, encoding="utf-8")


def choose(folder: Path) -> Launch:
    """Choose a broker to start, with its files in ``folder``.

    Raises:
        DemoError: there is none on this machine.

    """
    program = find_mosquitto()
    if program is not None:
        return mosquitto(program, folder, free_port())
    if importlib.util.find_spec("iotcore") is not None:
        return iotcore(folder, free_port())
    raise DemoError(
        "there is no broker on this machine: install one (`sudo apt-get install mosquitto`, or"
        f" `{sys.executable} -m pip install 'edge-slm-agent[demo]'`), or name one with --broker"
    )


def find_mosquitto() -> str | None:
    """Find mosquitto, which Debian keeps in a folder that an ordinary user's PATH leaves out."""
    return shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]))


def mosquitto(program: str, folder: Path, port: int) -> Launch:
    """Describe how to start mosquitto."""
    # Without set_tcp_nodelay a second small message waits for the acknowledgement of the first: 40 ms, measured.
    lines = [f"listener {port} {_HOST}", "allow_anonymous true", "persistence false", "set_tcp_nodelay true"]
    if os.geteuid() == 0:
        # It would change to a user of its own, and a process that does is no longer ended with its parent.
        lines.append("user root")
    path = folder / "mosquitto.conf"
    return Launch(
        "mosquitto",
        (program, "-c", str(path)),
        (path, "\n".join([*lines, ""])),
        Address(_HOST, port),
        "for this machine only, without passwords, and it forgets everything when it stops",
    )


def iotcore(folder: Path, port: int) -> Launch:
    """Describe how to start rumqttd as the package iotcore brings it.

    It listens for MQTT 5 alone: 3.1.1 takes a second port, whose listener panics when a message with MQTT 5
    properties reaches a subscriber there (iotcore 0.4.0).
    """
    path = folder / "iotcore.toml"
    text = f"""\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "demo"
listen = "{_HOST}:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 5000
max_payload_size = {_LARGEST_PAYLOAD}
max_inflight_count = 100
"""
    return Launch(
        "iotcore",
        # It logs every packet as an error.
        (sys.executable, "-P", "-m", "iotcore", "--log-level", "CRITICAL", "--config", str(path)),
        (path, text),
        Address(_HOST, port, "5"),
        "for this machine only, without passwords, MQTT 5 only (no 3.1.1), and it forgets everything when it stops",
    )


def free_port() -> int:
    """Return MQTT's own port if nobody listens there, or else one that the system chooses."""
    for port in (_PORT, 0):
        with socket.socket() as probe:
            # As the brokers do: a connection that lingers from the last run does not make the port taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError(f"no port of {_HOST} is free for a broker: name one that runs with --broker")


async def start(launch: Launch, log: Path) -> Child:
    """Start a broker, and return when it listens.

    Raises:
        DemoError: it does not.

    """
    launch.write_config()
    broker = await Child.start(f"the broker {launch.name}", launch.command, log)
    try:
        async with asyncio.timeout(_READY_S):
            await while_alive(_listening(launch.address), broker)
    except BaseException as error:
        await broker.stop(grace_s=0)
        if isinstance(error, TimeoutError):
            raise DemoError(f"{broker.name} did not begin to listen within {_READY_S:g} s: see {log}") from None
        raise
    return broker


async def _listening(address: Address) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(address.host, address.port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)  # there is nothing to wait on but the port itself
        else:
            writer.close()
            return
