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

import structlog

from agent.backoff import Backoff
from agent.contract.errors import Code, JobError
from agent.contract.jobs import Job
from agent.engines import translation, wire
from agent.engines.base import Done, EngineLost, Event, Health
from agent.engines.child import Child
from agent.engines.growth import Growth, default_allowance
from agent.engines.ladder import Ladder
from agent.engines.spec import Rung, Spec
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
        spec: the model, and how it is run.
        command: what is run as the worker, before its arguments.
        backoff: how long to wait before the worker is started again.
        patience: how long a worker may be silent before it counts as hung.

    Attributes:
        stuck: whether a worker that was killed does not die.

    """

    def __init__(
        self,
        spec: Spec,
        *,
        command: Sequence[str] | None = None,
        backoff: Backoff | None = None,
        patience: Patience = Patience(),  # noqa: B008  it is frozen
    ) -> None:
        self.spec = spec
        self.slots = spec.slots
        self.stuck = False
        self._command = tuple(command or _COMMAND)
        self._ladder = Ladder(spec.rungs)
        self._backoff = backoff or Backoff(0.5, 30.0, random.random)
        self._patience = patience
        self._leak_bytes = spec.leak_bytes or default_allowance()
        self._health = Health("loading", spec.name, spec.rungs[0].provider, provider_detail=spec.left_out)
        self._changed = asyncio.Event()
        self._stopped = False
        self._numbers = count(1)
        # What a job is told and has not read yet: its answer at most, so no other bound is needed. None: lost.
        self._jobs: dict[int, asyncio.Queue[wire.Message | None]] = {}
        # Of the worker that there is now. It has a growth once its model is loaded.
        self._child: Child | None = None
        self._watchdog = Watchdog(patience, 0.0)
        self._growth: Growth | None = None
        self._outgrown = False
        self._replaced = False
        self._said: str | None = None  # its own reason for its end
        self._lasting = False

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
        if self.spec.left_out is not None:
            _log.warning("engine.provider_left_out", model=self.spec.name, reason=self.spec.left_out)
        try:
            while True:
                rung = self._ladder.choose(_now())
                # What is measured and foretold is the provider's; and why it loads is still true.
                self._become(provider=rung.provider, detail=self._health.detail)
                reason = await self._live(rung)
                failures = failures + 1 if self._growth is None else 0
                if failures == 0:
                    self._backoff.reset()
                    reason = f"the inference process died ({reason})"
                if self._replaced:
                    continue
                others = self._ladder.fell(reason, _now(), lasting=self._lasting)
                failed = failures >= max(_FAILURES, len(self.spec.rungs))
                self._become(state="failed" if failed else "loading", detail=reason)
                if others:
                    _log.warning("engine.provider_set_aside", provider=rung.provider, reason=reason)
                    continue
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

    async def _live(self, rung: Rung) -> str:
        """Run one worker from its start to its end; return why it ended."""
        self._said, self._growth = None, None
        self._outgrown = self._replaced = self._lasting = False
        self._watchdog = Watchdog(self._patience, _now())
        try:
            child = await Child.start([*self._command, *self.spec.arguments(rung)], self._hear)
        except OSError as error:
            return f"the inference process cannot be started ({error.strerror})"
        self._child = child
        try:
            while not (child.gone.done() or child.killed or self._hangs(child)):
                self._renew(child)
                await asyncio.wait([child.gone], timeout=self._patience.watch_s)
            await self._see_dead(child)
        finally:
            self._child = None
            try:
                await child.end()
            finally:
                self._lose_jobs()
                self.stuck = not child.gone.done()
                child.gone.add_done_callback(lambda _: setattr(self, "stuck", False))
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
            why = self._ladder.rung.why
            _log.info("engine.model_loaded", load_s=round(message.load_s, 2), provider=message.provider, why=why)
            self._child = child  # a quick one is heard before `Child.start` has returned it
            self._growth = Growth(self._leak_bytes, child.private_bytes, message.load_s, _now())
            if message.narrowed:
                _log.warning("engine.window_narrowed", model=self.spec.name, context=message.context)
            self._ladder.stands(_now())
            self._become(state="ready", provider=message.provider, context=message.context, load_s=message.load_s)
        elif isinstance(message, wire.Failed):
            self._said, self._lasting = message.message, message.lasting
            child.kill()  # it has nothing left to say, and the end of a sick driver's library may never come
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
            self.stuck = True
            _log.error("engine.worker_undead", pid=child.pid)
            self._become(state="failed", detail="the inference process cannot be ended: restart the box")
            self._lose_jobs()
            await asyncio.wait([child.gone])
            self.stuck = False
            self._become(state="loading")

    def _lose_jobs(self) -> None:
        for told in self._jobs.values():
            told.put_nowait(None)

    def _weigh(self, child: Child, cached: int) -> None:
        """Look how far a worker has grown; asked when a job has ended. Its KV caches hold ``cached`` bytes then."""
        if self._growth is not None:  # it may speak of a job before it is ready, as it should not
            self._outgrown = self._growth.exceeds(child.private_bytes, cached, _now())
            self._renew(child)

    def _renew(self, child: Child) -> None:
        """Replace a worker that has grown too far, or that a better provider may follow, as soon as it owes nothing.

        No job is started on it meanwhile: under steady load, it would never be without one. A better provider waits for
        such a moment for some time first.
        """
        growth, now = self._growth, _now()
        if growth is None or self._said is not None or self._replaced:  # it is not loaded, or ends already
            return
        idle = not self._watchdog.owes
        detail = None
        if self._outgrown:
            detail = f"the inference process has grown by {growth.bytes >> 20:,} MiB and is replaced: jobs wait for it"
        elif self._ladder.due(now) if idle else self._ladder.overdue(now):
            detail = "a better provider is tried again: jobs wait for it"
        if detail and idle:
            event = "engine.worker_outgrown" if self._outgrown else "engine.provider_retried"
            _log.warning(event, pid=child.pid, grown_bytes=growth.bytes)
            self._replaced = True
            child.kill()
        if (detail is None) == (self._health.state == "loading"):
            self._become(state="loading" if detail else "ready", detail=detail)

    def _become(self, **change: object) -> None:
        told = {"detail": None, "provider_detail": self._ladder.detail or self.spec.left_out, **change}
        health = replace(self._health, **told)  # type: ignore[arg-type]
        if health != self._health:
            self._health = health
            self._changed.set()
            self._changed = asyncio.Event()


def _now() -> float:
    """Return the monotonic clock, in seconds, the same as the loop's."""
    return time.monotonic()
