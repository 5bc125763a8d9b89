"""A real box of two models under a steady load, and looks at its processes from outside."""

import asyncio
import csv
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import TextIO

import psutil

from tests.acceptance.playing import drawings
from tests.boxes import Box
from tests.brokers import Broker
from tests.soak.load import CAMERAS, Load
from tests.soak.verdict import Sample, Verdict, judge

# Short, so that finals leave the disk as fast as they come to it. They are not in memory, which is to be seen.
_RETENTION_S = 60.0
_LOOKS_A_LINE = 20


@dataclass
class Soaked:
    """What came of it.

    Attributes:
        samples: by process.
        outcomes: how many jobs ended how, by their error codes.
        lost: jobs without a final.
        changed: jobs with two different finals.
        exit_code: of the agent, at SIGTERM in the end.

    """

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    exit_code: int = 0

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What is to be said of each process."""
        return {process: judge(samples) for process, samples in self.samples.items()}

    @property
    def faults(self) -> list[str]:
        """What is wrong, as sentences."""
        found = [f"{process}: {fault}" for process, verdict in self.verdicts.items() for fault in verdict.faults]
        found += [f"{len(self.lost)} jobs have no final"] if self.lost else []
        found += [f"{len(self.changed)} jobs have two different finals"] if self.changed else []
        found += [f"the agent ended with {self.exit_code}"] if self.exit_code else []
        return found


async def soak(
    text: Path, vision: Path, *, seconds: float, seed: int, sample_s: float, out: TextIO, say: Callable[[str], object]
) -> Soaked:
    """Run a box under load.

    Args:
        text: the text model's folder.
        vision: that of the model that sees.
        seconds: how long it is under load.
        seed: of the load.
        sample_s: seconds between two looks.
        out: takes the samples, as CSV.
        say: is told now and then how it stands.

    """
    soaked = Soaked()
    with tempfile.TemporaryDirectory(prefix="edge-slm-soak-") as name, Broker(Path(name)) as broker:
        models = {"text": str(text), "vision": str(vision)}
        spool = {"retention_s": _RETENTION_S}
        async with Box(Path(name), broker.port, text, models=models, cameras=CAMERAS, spool=spool) as box:
            await box.logged("engine.model_loaded", 2)
            load = Load(broker.port, seed, drawings(50))
            async with asyncio.TaskGroup() as side:
                looking = side.create_task(_look(box.pid, load, soaked.samples, sample_s, out, say))
                await load.run(seconds)
                looking.cancel()
            soaked.exit_code = await box.stop()
    soaked.outcomes = dict(load.outcomes)
    soaked.lost = [job_id for caller in load.callers for job_id in caller.lost]
    soaked.changed = [job_id for caller in load.callers for job_id in caller.changed]
    return soaked


async def _look(
    pid: int,
    load: Load,
    samples: dict[str, list[Sample]],
    sample_s: float,
    out: TextIO,
    say: Callable[[str], object],
) -> None:
    """Take samples, until cancelled."""
    rows = csv.writer(out)
    rows.writerow([*(each.name for each in fields(Sample)), "finals"])
    begun = time.monotonic()
    looks = 0
    while True:
        await asyncio.sleep(begun + looks * sample_s - time.monotonic())
        looks += 1
        at_s, finals = time.monotonic() - begun, load.outcomes.total()
        seen = list(_samples(pid, at_s))
        for sample in seen:
            samples.setdefault(sample.process, []).append(sample)
            rows.writerow([*astuple(sample), finals])
        out.flush()
        if looks % _LOOKS_A_LINE == 1:
            memory = ", ".join(f"{sample.process} {sample.resident / 1e6:.1f} MB" for sample in seen)
            say(f"{at_s:6.0f} s  {finals} jobs  {memory}")


def _samples(pid: int, at_s: float) -> Iterator[Sample]:
    """Look at the agent, and at its inference processes, each of which was told its model's folder."""
    agent = psutil.Process(pid)
    yield _sample(agent, "agent", at_s)
    for worker in agent.children():
        # One that ended this moment is seen by the number of the next one.
        with suppress(psutil.NoSuchProcess):
            command = worker.cmdline()
            yield _sample(worker, Path(command[command.index("agent.engines.worker") + 1]).name, at_s)


def _sample(process: psutil.Process, name: str, at_s: float) -> Sample:
    memory = process.memory_info()
    anonymous = memory.rss - memory.shared
    return Sample(at_s, name, process.pid, memory.rss, anonymous, process.num_fds(), process.num_threads())
