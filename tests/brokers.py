"""A real mosquitto, to be killed, stopped and restarted by tests."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Broker:
    """mosquitto on a port of its own, with its persistence under ``directory``; both outlive a restart.

    Args:
        directory: where its files go.
        lines: further lines of its configuration; one that begins with ``allow_anonymous`` replaces ours.

    """

    def __init__(self, directory: Path, *lines: str) -> None:
        self.port = free_port()
        self._log = directory / "mosquitto.log"
        self._config = directory / "mosquitto.conf"
        own = [
            f"listener {self.port} 127.0.0.1",
            "user root",
            "persistence true",
            "set_tcp_nodelay true",
            f"persistence_location {directory}/",
            # With the stock settings, kill -9 would cost the broker its last half hour.
            "autosave_interval 1",
            "autosave_on_changes true",
        ]
        if not any(line.startswith("allow_anonymous") for line in lines):
            own.append("allow_anonymous true")
        self._config.write_text("\n".join([*own, *lines, ""]))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def log(self) -> str:
        """What the broker has logged, over all its starts."""
        return self._log.read_text()

    def start(self) -> None:
        """Start it, and return when it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(["mosquitto", "-v", "-c", self._config], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"mosquitto did not start:\n{self.log}") from None
                time.sleep(0.005)  # it offers nothing to wait on but its port
            else:
                return

    def kill(self) -> None:
        """Kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Have it neither read nor write, as a stalled link would."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
