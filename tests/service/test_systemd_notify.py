"""What systemd hears of a real ``edge-slm run``, on a real notification socket."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.herald import Herald
from agent.systemd import Systemd
from tests.boxes import EDGE_SLM, Box
from tests.brokers import Broker
from tests.service.test_supervisor import Engine

# Between two signs of life in these tests, in seconds; systemd waits for three of them.
BEAT_S = 0.1
# How long the loop is held where it is.
HELD_S = 1.0
# As `edge-slm`, but SIGUSR1 holds the event loop: the handler runs in its thread, between two steps of it.
HELD = f"""
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep({HELD_S}))
from agent.cli import main
main()
"""


class Manager:
    """The socket that systemd would have.

    Attributes:
        heard: all that came.

    """

    def __init__(self, address: str) -> None:
        self.heard: list[str] = []
        self.environ = {"NOTIFY_SOCKET": address.replace("\0", "@"), "WATCHDOG_USEC": str(int(3e6 * BEAT_S))}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(address)

    def close(self) -> None:
        self._socket.close()

    async def next(self, *beginnings: str) -> str:
        """Wait for a message that begins in one of these ways."""
        while True:
            self.heard.append((await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode())
            if self.heard[-1].startswith(beginnings):
                return self.heard[-1]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    found = Manager(str(tmp_path / "notify"))
    yield found
    found.close()


@pytest.fixture
async def box(tmp_path: Path, model_folder: Path, broker: Broker, manager: Manager) -> AsyncIterator[Box]:
    """Make a box that systemd starts, not yet started."""
    found = Box(tmp_path, broker.port, model_folder)
    found.environ = manager.environ
    yield found
    await found.kill()


async def test_ready_is_said_once_the_box_is_subscribed_and_its_model_loaded(box: Box, manager: Manager) -> None:
    box.start()
    await manager.next("READY=1")
    events = [each["event"] for each in box.events]
    assert {"mqtt.connected", "engine.model_loaded"} <= {*events}
    assert (await manager.next("STATUS=")) == "STATUS=serving: smollm2-135m on cpu; 0 jobs run, 0 wait"


async def test_a_start_without_a_broker_asks_for_more_time_and_says_what_it_waits_for(
    box: Box, broker: Broker, manager: Manager
) -> None:
    broker.kill()
    box.start()
    assert await manager.next("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=60000000"
    told = await manager.next("STATUS=connecting:")
    assert told == f"STATUS=connecting: no broker at 127.0.0.1:{broker.port} yet; 0 jobs run, 0 wait"
    assert "READY=1" not in manager.heard


async def test_a_refused_reload_and_the_end_are_told_in_order(box: Box, manager: Manager) -> None:
    box.start()
    await manager.next("READY=1")
    box.config.write_text("mqtt: {prot: 1883}")
    box.reload()
    assert "\nMONOTONIC_USEC=" in await manager.next("RELOADING=1")
    await manager.next("READY=1")
    assert "; the last change was refused (" in await manager.next("STATUS=")
    assert await box.stop() == 0
    await manager.next("STOPPING=1")
    # What is in force says how long the end may take, and a unit cannot be edited from afar.
    assert await manager.next("EXTEND_TIMEOUT_USEC=") == "EXTEND_TIMEOUT_USEC=55000000"


async def test_a_box_whose_standard_input_was_closed_runs(box: Box) -> None:
    box.start("sh", "-c", f'exec {EDGE_SLM} "$@" <&-', "sh")
    await box.logged("service.started")
    assert await box.stop() == 0


async def test_nobody_says_that_a_box_lives_whose_loop_is_held(box: Box, manager: Manager) -> None:
    box.start(sys.executable, "-c", HELD)
    await manager.next("WATCHDOG=1")
    os.kill(box.pid, signal.SIGUSR1)
    clock = asyncio.get_running_loop().time
    silent_s = 0.0
    while silent_s < 0.9 * HELD_S:
        since = clock()
        await manager.next("WATCHDOG=1")
        silent_s = clock() - since


async def test_nobody_says_that_a_box_lives_while_a_worker_that_was_killed_does_not_die(manager: Manager) -> None:
    engine = Engine("first")
    telling = asyncio.create_task(Herald(Systemd(manager.environ), [engine]).run())  # type: ignore[list-item]
    await manager.next("WATCHDOG=1")
    engine.stuck = True
    manager.heard.clear()
    for _ in range(3):
        await manager.next("EXTEND_TIMEOUT_USEC=")
    assert "WATCHDOG=1" not in manager.heard[1:]
    engine.stuck = False
    await manager.next("WATCHDOG=1")
    telling.cancel()


async def test_an_abstract_socket_is_reached() -> None:
    manager = Manager(f"\0edge-slm-test-{os.getpid()}")
    Systemd(manager.environ).stopping()
    assert await manager.next("") == "STOPPING=1"
    manager.close()


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "1000000"}, {"NOTIFY_SOCKET": "/missing/socket"}])
def test_nothing_is_amiss_where_systemd_is_not_there(environ: dict[str, str]) -> None:
    systemd = Systemd(environ)
    systemd.stopping()
    assert systemd.watchdog_s is None


def test_the_watchdog_of_another_process_is_not_ours(manager: Manager) -> None:
    """A service that starts us from a script leaves its own in our environment."""
    assert Systemd({**manager.environ, "WATCHDOG_PID": "1"}).watchdog_s is None
    assert Systemd({**manager.environ, "WATCHDOG_PID": str(os.getpid())}).watchdog_s == pytest.approx(3 * BEAT_S)
