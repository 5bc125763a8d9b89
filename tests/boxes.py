"""A box as its user runs it: ``edge-slm run`` as a process of its own, to be killed by tests."""

import asyncio
import json
import os
import signal
import subprocess
import sysconfig
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.bench.rig import children

EDGE_SLM = Path(sysconfig.get_path("scripts")) / "edge-slm"


class Box:
    """``edge-slm run`` against a broker, with its state under ``directory``; both outlive a restart.

    Args:
        directory: where its files go.
        port: of the broker.
        model: the model's folder.
        settings: further settings, by section.

    Attributes:
        environ: what it finds in its environment beside the test's own, at its next start.

    """

    def __init__(self, directory: Path, port: int, model: Path, **settings: Any) -> None:
        self.config = directory / "box.yaml"
        self.environ: dict[str, str] = {}
        self._log = directory / "agent.log"
        self._mine: dict[str, Any] = {
            "device": {"id": "box1"},
            "mqtt": {"port": port},
            "state_dir": str(directory / "state"),
            "models": {"text": str(model)},
            "log": {"format": "json"},
        }
        self.configure(**settings)
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self.start()
        await self.logged("mqtt.connected")  # a request before that has no subscriber, and the broker drops it
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the box has logged, over all its starts."""
        lines = self._log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def worker(self) -> int:
        """The process id of the one inference process."""
        (found,) = self.workers
        return found

    @property
    def workers(self) -> list[int]:
        """The process ids of the inference processes."""
        return children(self.pid)

    def start(self, *program: str | Path) -> None:
        """Start it, or another program in its place; it comes online by itself."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*(program or (EDGE_SLM,)), "run", "--config", self.config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environ},
            )

    def configure(self, **settings: Any) -> None:
        """Write its configuration, with other sections than before; a running box hears of it by `reload`."""
        self._mine |= settings
        self.config.write_text(json.dumps(self._mine))

    def reload(self) -> None:
        """Have it read its configuration anew."""
        os.kill(self.pid, signal.SIGHUP)

    async def logged(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait until it has logged an event ``count`` times, and return the last of them."""
        while True:
            found = [each for each in self.events if each["event"] == event]
            if len(found) >= count:
                return found[-1]
            assert self._process is None or self._process.poll() is None, self._log.read_text()
            await asyncio.sleep(0.01)  # a file offers nothing to wait on

    async def kill(self) -> None:
        """Kill -9."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        code = await asyncio.to_thread(self._process.wait)
        self._process = None
        return code


async def edge_slm(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([EDGE_SLM, *arguments], input=stdin, capture_output=True, text=True, check=False)

    return await asyncio.to_thread(run)


def read_log(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what a box has logged, and the lines that are none of its events."""
    events, unread = [], []
    for line in path.read_text().splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            unread.append(line)
    return events, unread
