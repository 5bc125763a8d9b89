"""A real box of two models under a steady load, and looks at its processes from outside."""

import asyncio
import csv
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from random import Random
from typing import TextIO

import psutil

from tests.acceptance.playing import drawings
from tests.boxes import Box
from tests.brokers import Broker
from tests.soak.load import CAMERAS, Load
from tests.soak.verdict import Fault, Judgement, Sample, judge

# Short, so that finals leave the disk as fast as they come to it. They are not in memory, which is to be seen.
_RETENTION_S = 60.0
_LOOKS_A_LINE = 20
_WORKER = "agent.engines.worker"
# How the load's jobs may end. A frame that waits gives way to the camera's next one.
_MEANT = {"ok", "bad_request", "canceled", "superseded"}


@dataclass
class Soaked:
    """What came of it.

    Attributes:
        samples: by process.
        outcomes: how many jobs ended how, by their error codes.
        lost: jobs without a final.
        changed: jobs with two different finals.
        exit_code: of the agent, at SIGTERM in the end.
        died: whether it ended before that.

    """

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    exit_code: int = 0
    died: bool = False

    @property
    def judgement(self) -> Judgement:
        """What is to be said of it, the answers among it."""
        judged = judge(self.samples)
        judged.faults.extend(self._accidents())
        return judged

    def _accidents(self) -> Iterator[Fault]:
        if self.died:
            yield Fault("processes", f"the agent died under the load, with {self.exit_code}")
        elif self.exit_code:
            yield Fault("processes", f"the agent ended with {self.exit_code}")
        if self.lost:
            yield Fault("answers", f"{len(self.lost)} jobs have no final")
        if self.changed:
            yield Fault("answers", f"{len(self.changed)} jobs have two different finals")
        for code in sorted(self.outcomes.keys() - _MEANT):
            yield Fault("answers", f"{self.outcomes[code]} jobs ended with {code}")
        if not self.outcomes.get("ok"):
            yield Fault("answers", "no job succeeded")


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
                loading = side.create_task(load.run(seconds))
                await asyncio.wait({looking, loading}, return_when=asyncio.FIRST_COMPLETED)
                soaked.died = not loading.done()
                looking.cancel()
                loading.cancel()
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
    """Take samples, until cancelled, or the agent is dead."""
    agent, random = psutil.Process(pid), Random(0)
    rows = csv.writer(out)
    rows.writerow(each.name for each in fields(Sample))
    begun = time.monotonic()
    looks = 0
    # Nobody asks for its exit code before the end, so that its number stays its own.
    while agent.status() != psutil.STATUS_ZOMBIE:
        try:
            seen = list(_samples(agent, time.monotonic() - begun, load.outcomes.total()))
        except psutil.Error:  # it died this moment
            return
        for sample in seen:
            samples.setdefault(sample.process, []).append(sample)
            rows.writerow(astuple(sample))
        out.flush()
        if looks % _LOOKS_A_LINE == 0:
            memory = ", ".join(f"{sample.process} {sample.resident / 1e6:.1f} MB" for sample in seen)
            say(f"{seen[0].at_s:6.0f} s  {seen[0].finals} jobs  {memory}")
        looks += 1
        # Anywhere in its second: in step with the camera, looks fell on pictures for minutes, and then on none.
        await asyncio.sleep(begun + (looks + random.uniform(-0.5, 0.5)) * sample_s - time.monotonic())


def _samples(agent: psutil.Process, at_s: float, finals: int) -> Iterator[Sample]:
    """Look at the agent, and at its inference processes, each of which was told its model's folder."""
    yield _sample(agent, "agent", at_s, finals)
    for worker in agent.children():
        # One that ended this moment is seen by the number of the next one, and one that begins by its next look: it
        # is still a copy of the agent.
        with suppress(psutil.Error):
            command = worker.cmdline()
            if _WORKER in command:
                yield _sample(worker, Path(command[command.index(_WORKER) + 1]).name, at_s, finals)


def _sample(process: psutil.Process, name: str, at_s: float, finals: int) -> Sample:
    memory = process.memory_info()
    anonymous = memory.rss - memory.shared
    return Sample(at_s, name, process.pid, memory.rss, anonymous, process.num_fds(), process.num_threads(), finals)
