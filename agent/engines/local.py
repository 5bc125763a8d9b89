"""The local engine, seen from the daemon: a worker process that runs the model, kept alive.

onnxruntime-genai holds the GIL for as long as a native call lasts, and may crash. So nothing of it is in this
process: jobs go to the worker, and their words come back, as frames (`agent.engines.wire`).
"""

import asyncio
import random
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import structlog

from agent.backoff import Backoff
from agent.contract.errors import Code, JobError
from agent.contract.jobs import Job
from agent.engines import translation, wire
from agent.engines.base import Done, EngineLost, Event, Health
from agent.engines.child import Child
from agent.engines.growth import Growth, default_allowance
from agent.engines.watchdog import Patience, Watchdog
from agent.metrics import resident_bytes

_log = structlog.get_logger(__name__)

# -P: a folder named "agent" where the daemon was started must not be taken for ours.
_COMMAND = (sys.executable, "-P", "-m", "agent.engines.worker")
# A single failed load may be a machine that is still starting; a second is a fault that someone has to mend.
_FAILURES = 2
# A killed process is gone at once, but for what the kernel must do before: giving back 4 GB that were swapped out takes
# seconds. One that waits for a driver or a disk that is stuck may take for ever, and jobs are not to wait for that.
_DEATH_S = 10.0


class LocalEngine:
    """Runs jobs on this box.

    Args:
        name: the model's name, for people.
        folder: where its genai_config.json is.
        slots: how many jobs run at the same time; each has a KV cache of its own.
        threads: of one inference step; None takes one a physical core.
        default_max_tokens: the longest answer of a job that does not say.
        command: what is run as the worker, before its arguments.
        backoff: how long to wait before the worker is started again.
        patience: how long a worker may be silent before it counts as hung.
        leak_bytes: how far a worker's memory may grow before it is replaced; None takes a quarter of the box's,
            or of what its cgroup may have.

    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        slots: int,
        threads: int | None,
        default_max_tokens: int,
        command: Sequence[str] | None = None,
        backoff: Backoff | None = None,
        patience: Patience = Patience(),  # noqa: B008  it is frozen
        leak_bytes: int | None = None,
    ) -> None:
        self.slots = slots
        self._command = [*(command or _COMMAND), str(folder)]
        self._command += ["--slots", str(slots), "--max-tokens", str(default_max_tokens)]
        if threads is not None:
            self._command += ["--threads", str(threads)]
        self._backoff = backoff or Backoff(0.5, 30.0, random.random)
        self._patience = patience
        self._leak_bytes = leak_bytes or default_allowance()
        self._health = Health("loading", name)
        self._changed = asyncio.Event()
        self._stopped = False
        self._numbers = count(1)
        # What a job is told and has not read yet: its answer at most, so no other bound is needed. None: lost.
        self._jobs: dict[int, asyncio.Queue[wire.Message | None]] = {}
        # Of the worker that there is now. It has a growth once its model is loaded.
        self._child: Child | None = None
        self._watchdog = Watchdog(patience, 0.0)
        self._growth: Growth | None = None
        self._replaced = False
        self._said: str | None = None  # its own reason for its end

    def __repr__(self) -> str:
        return f"<LocalEngine {self._health.model} {self._health.state}, {len(self._jobs)} jobs, {self._child}>"

    @property
    def health(self) -> Health:
        """How the engine is now."""
        return self._health

    @property
    def resident_bytes(self) -> int:
        """Memory that the worker has in use, 0 while there is none."""
        return resident_bytes(self._child.pid) if self._child else 0

    async def changed(self) -> Health:
        """Wait for the next change of state, and return the health after it."""
        await self._changed.wait()
        return self._health

    async def serve(self) -> None:
        """Keep a worker alive until cancelled; then end it."""
        failures = 0
        self._stopped = False
        try:
            while True:
                reason = await self._live()
                if self._replaced:
                    continue
                failures = failures + 1 if self._growth is None else 0
                if failures == 0:
                    self._backoff.reset()
                    reason = f"the inference process died ({reason})"
                self._become(state="failed" if failures >= _FAILURES else "loading", detail=reason)
                delay_s = self._backoff.next()
                _log.warning("engine.worker_lost", reason=reason, failed_loads=failures, retry_s=round(delay_s, 2))
                await asyncio.sleep(delay_s)
        finally:
            self._stopped = True
            self._become(state="loading", detail="the engine was stopped")

    async def run(self, job: Job) -> AsyncGenerator[Event, None]:
        """Run one job; see `agent.engines.base.Engine.run`."""
        number = next(self._numbers)
        submit = translation.submit(number, job)
        child = await self._ready()
        told: asyncio.Queue[wire.Message | None] = asyncio.Queue()
        self._jobs[number] = told
        self._watchdog.submitted(number, _now())
        ended = False
        try:
            await child.send(submit)
            while not ended:
                event = translation.event(await told.get())
                ended = isinstance(event, Done)
                yield event
        except (JobError, EngineLost):
            ended = True
            raise
        finally:
            del self._jobs[number]
            if not ended and child is self._child:
                child.tell(wire.Cancel(number))

    async def _ready(self) -> Child:
        """Wait for a worker that has its model.

        A job is chosen for an engine that is ready, and the worker may be lost before it gets here. One given to a
        worker that loads would be lost with a load that fails, and be taken for its cause.

        Raises:
            JobError: the model cannot be loaded.
            EngineLost: the engine was stopped.

        """
        while (child := self._child) is None or self._health.state != "ready":
            if self._stopped:
                raise EngineLost("the engine was stopped")
            if self._health.state == "failed":
                raise JobError(Code.MODEL_UNAVAILABLE, self._health.detail or "the model cannot be loaded")
            await self.changed()
        return child

    async def _live(self) -> str:
        """Run one worker from its start to its end; return why it ended."""
        self._said, self._growth, self._replaced = None, None, False
        self._watchdog = Watchdog(self._patience, _now())
        try:
            child = await Child.start(self._command, self._hear)
        except OSError as error:
            return f"the inference process cannot be started ({error.strerror})"
        self._child = child
        try:
            while not (child.gone.done() or child.killed or self._hangs(child)):
                await asyncio.wait([child.gone], timeout=self._patience.watch_s)
            await self._see_dead(child)
        finally:
            self._child = None
            try:
                await child.end()
            finally:
                self._lose_jobs()
        reason = self._said or child.fault
        if self._growth is None:
            # It has read no job yet, so that there is none to be betrayed by what a library printed.
            _log.warning("engine.load_failed", fate=child.fate, printed=child.last_line)
            reason = (
                reason or f"the inference process ended while it loaded the model ({child.fate}): see the box's log"
            )
        return reason or child.fate

    def _hear(self, child: Child, message: wire.Message) -> None:
        """Take in what the worker says."""
        self._watchdog.hear(message, _now())
        if isinstance(message, wire.Ready):
            _log.info("engine.model_loaded", load_s=round(message.load_s, 2), provider=message.provider)
            self._child = child  # a quick one is heard before `Child.start` has returned it
            self._growth = Growth(self._leak_bytes, child.private_bytes, message.load_s, _now())
            self._become(state="ready", provider=message.provider, context=message.context, load_s=message.load_s)
        elif isinstance(message, wire.Failed):
            self._said = message.message
        else:
            told = self._jobs.get(message.job)  # None for a job that was closed meanwhile
            if told and not isinstance(message, wire.Progress):
                told.put_nowait(message)
            if isinstance(message, wire.Ended):
                self._weigh(child, message.held)

    def _hangs(self, child: Child) -> bool:
        dog = self._watchdog
        if not dog.look(child.effort, _now()):
            return False
        silent_s = round(dog.silent_s, 1)
        _log.error("engine.worker_hung", pid=child.pid, jobs=dog.owes, silent_s=silent_s)
        if self._growth is None:
            self._said = f"the inference process hung while it loaded the model, for {silent_s} s: see the box's log"
        else:
            self._said = f"it hung, silent for {silent_s} s"
            self._become(state="loading", detail="the inference process hung and is ended")
            # Not when it is dead: one that waits for a device's driver may end late, whatever it is sent.
            self._lose_jobs()
        return True

    async def _see_dead(self, child: Child) -> None:
        """Kill a worker and wait for its death, however late: a second one would want its memory and device."""
        child.kill()
        await asyncio.wait([child.gone], timeout=_DEATH_S)
        if not child.gone.done():
            _log.error("engine.worker_undead", pid=child.pid)
            self._become(state="failed", detail="the inference process cannot be ended: restart the box")
            self._lose_jobs()
            await asyncio.wait([child.gone])
            self._become(state="loading")

    def _lose_jobs(self) -> None:
        for told in self._jobs.values():
            told.put_nowait(None)

    def _weigh(self, child: Child, cached: int) -> None:
        """Replace a worker that has grown too far as soon as it owes nothing; asked when a job has ended.

        Its KV caches hold ``cached`` bytes then.
        No job is started on it meanwhile: under steady load, it would never be without one.
        """
        growth = self._growth
        if growth is None or self._said is not None:  # it is not loaded, or ends already
            return
        exceeds = growth.exceeds(child.private_bytes, cached, _now())
        if exceeds and not self._watchdog.owes:
            _log.warning("engine.worker_outgrown", pid=child.pid, grown_bytes=growth.bytes)
            self._replaced = True
            child.kill()
        if exceeds != (self._health.state == "loading"):
            detail = f"the inference process has grown by {growth.bytes >> 20:,} MiB and is replaced: jobs wait for it"
            self._become(**{"state": "loading", "detail": detail} if exceeds else {"state": "ready"})

    def _become(self, **change: object) -> None:
        health = replace(self._health, **{"detail": None, **change})  # type: ignore[arg-type]
        if health != self._health:
            self._health = health
            self._changed.set()
            self._changed = asyncio.Event()


def _now() -> float:
    """Return the monotonic clock, in seconds, the same as the loop's."""
    return time.monotonic()
