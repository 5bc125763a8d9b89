"""The rig: a broker, a box and the bare loop, started for a measurement and stopped after it."""

import asyncio
import json
import os
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.client import Client
from agent.demo import brokers
from agent.demo.children import Child, DemoError
from agent.settings import Mqtt, Settings

Messages = list[dict[str, str]]

_NODE = "bench"
_ONLINE_S = 60.0
_STOP_S = 10.0


@dataclass
class Box:
    """A running box and how to reach it."""

    agent: Child
    mqtt: Mqtt
    folder: Path

    def client(self, name: str) -> Client:
        """Return a device of this box, not yet connected."""
        return Client(self.mqtt, _NODE, name)


class Rig:
    """Starts what a measurement needs.

    Args:
        settings: the model, the slots and the threads are taken from here.
        model: the model's folder.

    """

    def __init__(self, settings: Settings, model: Path) -> None:
        self.settings = settings
        self.model = model

    @asynccontextmanager
    async def box(self, *program: str) -> AsyncIterator[Box]:
        """Run a box as a child of its own, with a broker; by default the real ``edge-slm run``.

        Args:
            program: a module of this package, and its arguments, to run instead.

        """
        with tempfile.TemporaryDirectory(prefix="edge-slm-bench-") as name:
            folder = Path(name)
            launch = brokers.choose(folder)
            broker = await brokers.start(launch, folder / "broker.log")
            try:
                mqtt = Mqtt(host=launch.address.host, port=launch.address.port, protocol=launch.address.protocol)
                config = self._configure(folder, mqtt)
                edge_slm = Path(sysconfig.get_path("scripts")) / "edge-slm"
                command: Sequence[str | Path] = (edge_slm, "run", "--config", config)
                if program:
                    # -P: a folder that the user happens to be in must not shadow a package.
                    command = (sys.executable, "-P", "-m", *program, config)
                agent = await Child.start("the agent", command, folder / "agent.log")
                try:
                    async with Client(mqtt, _NODE, "waiter") as waiter:
                        await waiter.online(_ONLINE_S)
                    yield Box(agent, mqtt, folder)
                finally:
                    await agent.stop(_STOP_S)
            finally:
                await broker.stop(_STOP_S)

    async def bare(self, prompts: Sequence[Messages], max_tokens: int) -> list[dict[str, Any]]:
        """Run prompts through the bare loop, in a process of its own."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "agent.engines.worker.bare", str(self.model)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        asked = json.dumps({"prompts": list(prompts), "max_tokens": max_tokens}).encode()
        out, _ = await process.communicate(asked)
        if process.returncode:
            raise DemoError(f"the bare loop failed with status {process.returncode}: see above")
        results: list[dict[str, Any]] = json.loads(out)
        return results

    def _configure(self, folder: Path, mqtt: Mqtt) -> Path:
        config = folder / "config.yaml"
        mine = {
            "device": {"id": _NODE},
            "mqtt": mqtt.model_dump(mode="json", exclude_defaults=True) | {"port": mqtt.port},
            "state_dir": str(folder / "state"),
            "models": {"text": str(self.model)},
            "engine": self.settings.engine.model_dump(),
            "queue": {"max_jobs": 100_000},
            "log": {"level": "warning"},
            "drain_s": 1,
        }
        config.write_text(json.dumps(mine), encoding="utf-8")  # JSON is YAML
        return config


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of the children it has waited for or has now, in seconds."""
    total = 0.0
    for each in [pid, *children(pid)]:
        fields = Path(f"/proc/{each}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children(pid: int) -> list[int]:
    """Return the processes that ``pid``'s threads have started and that still run."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(each) for each in (task / "children").read_text(encoding="ascii").split()]
    return found
