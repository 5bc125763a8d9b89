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
from functools import cached_property
from pathlib import Path
from typing import Any

from agent.client import Client
from agent.demo import brokers
from agent.demo.children import Child, DemoError, while_alive
from agent.hardware import machine
from agent.models.pull import pull
from agent.models.store import resolve
from agent.settings import Mqtt, Settings

Messages = list[dict[str, str]]

# What is measured where the configuration names no model.
SMALL, SHAPES = "smollm2-135m", "shapes-vision"
# Whose raw frames the boxes of this bench look at.
CAMERA = "bench"
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
        settings: the models, the slots and the threads are taken from here.

    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def text(self) -> Path:
        """The text model's folder.

        Raises:
            ModelError: it is not there.

        """
        return resolve(self.settings.models.text or SMALL, self.settings.models_dir)

    @cached_property
    def vision(self) -> Path:
        """The vision model's folder.

        Raises:
            ModelError: it is not there.

        """
        named = self.settings.models.vision
        return self.shapes if named is None else resolve(named, self.settings.models_dir)

    @cached_property
    def shapes(self) -> Path:
        """The folder of the vision model that comes with this package.

        Raises:
            ModelError: it cannot be copied into the store.

        """
        return pull(SHAPES, self.settings.models_dir)

    @asynccontextmanager
    async def box(self, *program: str, vision: Path | None = None, **sections: object) -> AsyncIterator[Box]:
        """Run a box as a child of its own, with a broker; by default the real ``edge-slm run``.

        Args:
            program: a module of this package, and its arguments, to run instead.
            vision: the only model that it has; by default the text model.
            sections: of its configuration, instead of the bench's own.

        """
        with tempfile.TemporaryDirectory(prefix="edge-slm-bench-") as name:
            folder = Path(name)
            launch = brokers.choose(folder)
            broker = await brokers.start(launch, folder / "broker.log")
            try:
                mqtt = Mqtt(host=launch.address.host, port=launch.address.port, protocol=launch.address.protocol)
                config = self._configure(folder, mqtt, vision, sections)
                edge_slm = Path(sysconfig.get_path("scripts")) / "edge-slm"
                command: Sequence[str | Path] = (edge_slm, "run", "--config", config)
                if program:
                    # -P: a folder that the user happens to be in must not shadow a package.
                    command = (sys.executable, "-P", "-m", *program, config)
                agent = await Child.start("the agent", command, folder / "agent.log")
                try:
                    async with Client(mqtt, _NODE, "waiter") as waiter:
                        await while_alive(waiter.online(_ONLINE_S), agent)
                    yield Box(agent, mqtt, folder)
                finally:
                    await agent.stop(_STOP_S)
            finally:
                await broker.stop(_STOP_S)

    async def bare(self, prompts: Sequence[Messages], max_tokens: int) -> list[dict[str, Any]]:
        """Run prompts through the bare loop, in a process of its own, with as many threads as the box."""
        threads = self.settings.engine.threads or machine.read().processor.fast_cores
        asked = {"prompts": list(prompts), "max_tokens": max_tokens, "threads": threads}
        results: list[dict[str, Any]] = await _run("agent.engines.worker.bare", self.text, asked)
        return results

    async def prepared(self, files: Sequence[Path]) -> list[dict[str, list[float]]]:
        """Prepare pictures at low detail and with the library's processor, in a process of its own; twice, to warm up.

        Returns:
            for each file the times of ``ours_s`` and ``library_s``, in seconds.

        """
        asked = {"files": list(map(str, files)), "most": 1, "repeats": 2}
        times: list[dict[str, list[float]]] = await _run("agent.engines.worker.bare_vision", self.vision, asked)
        return times

    def _configure(self, folder: Path, mqtt: Mqtt, vision: Path | None, sections: dict[str, object]) -> Path:
        config = folder / "config.yaml"
        mine = {
            "device": {"id": _NODE},
            "mqtt": mqtt.model_dump(mode="json", exclude_defaults=True) | {"port": mqtt.port},
            "state_dir": str(folder / "state"),
            "models": {"text": str(self.text)} if vision is None else {"text": None, "vision": str(vision)},
            "cameras": {CAMERA: {"prompt": "What is in the picture?", "detail": "low", "max_tokens": 16}},
            "engine": self.settings.engine.model_dump(),
            "queue": {"max_jobs": 100_000},
            "log": {"level": "warning"},
            "drain_s": 1,
        }
        config.write_text(json.dumps(mine | sections), encoding="utf-8")  # JSON is YAML
        return config


async def _run(module: str, model: Path, asked: object) -> Any:  # noqa: ANN401  JSON
    """Run a module with a model in a process of its own; it reads JSON and writes JSON."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module, str(model)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(json.dumps(asked).encode())
    if process.returncode:
        raise DemoError(f"{module} failed with status {process.returncode}: see above")
    return json.loads(out)


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
