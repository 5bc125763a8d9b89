"""The box through its changes of configuration: one service after another, in one process.

A new configuration is read and checked while the box goes on; if it is wrong, nothing happens, and that is said. Else
its models are loaded, in the place of those that it has not, while jobs are taken on and wait: a box to which they had
been shown would end them if its model failed. Then the service drains, as at a shutdown, and one with the new
configuration follows. If a model fails, or the broker is not reached again, the configuration before comes back. What
is under way is in the spool, which stays open, and what comes is kept by the broker: nothing is lost.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, Never, TypeVar

import structlog

from agent.box import Box, failure_of
from agent.engines.local import LocalEngine
from agent.engines.served import Engines
from agent.errors import UserError
from agent.hardware import machine
from agent.herald import Herald
from agent.kernel_files import available_bytes
from agent.placement import Station
from agent.service import Service
from agent.settings import Settings
from agent.spool import Room, Spool, SpoolSick
from agent.stations import local_engines
from agent.systemd import Systemd

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")

# Between two tries to open the spool on a disk that is full, read-only or failing.
_SICK_DISK_S = 10.0
# How long a new configuration may take to reach the broker, where the one before had reached it: a name server and TLS
# over a bad link take seconds, a broker that is started anew at the same time half a minute.
_SUBSCRIBED_S = 60.0
# What is under way is stored and answered under these, so that only a new start can change them.
_FIXED = ("device.id", "mqtt.root", "state_dir", "spool.max_jobs", "spool.max_bytes")
_ADVICE = {
    "refused": "mend it and reload again; the box goes on as it was",
    "rolled_back": "mend it and reload again; the configuration before is back",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change of the configuration; ``detail`` is a sentence on what is wrong, if anything is."""

    state: Literal["applied", "unchanged", "refused", "rolled_back"]
    detail: str | None = None


class Supervisor:
    """Runs the box, and changes its configuration.

    Args:
        configure: reads every layer of the configuration anew; called in a thread. Raises `UserError`.
        desired: is given what is published on the topic of remote configuration; see `Service`.
        adopted: called with a configuration when it comes into force, and when an earlier one comes back.
        systemd: is told how the box is.

    """

    def __init__(
        self,
        configure: Callable[[], Settings],
        *,
        desired: Callable[[bytes], None] | None = None,
        adopted: Callable[[Settings], None] = lambda _: None,
        systemd: Systemd | None = None,
    ) -> None:
        self._configure = configure
        self._desired = desired
        self._adopted = adopted
        self._engines = Engines()
        self._herald = Herald(systemd or Systemd({}), self._engines)
        self._stop = asyncio.Event()
        self._news = asyncio.Event()
        self._asked: asyncio.Future[Outcome] | None = None
        self._ended = False
        self._reported: bytes | None = None
        self._box: Box | None = None

    def __repr__(self) -> str:
        return f"<Supervisor {self._herald.status}>"

    def report(self, payload: bytes) -> None:
        """Publish what became of the remote configuration, now and by every later service; see `Service.report`."""
        self._reported = payload
        if self._box is not None:
            self._box.service.report(payload)

    def ask(self) -> asyncio.Future[Outcome]:
        """Have the configuration read anew; the future is cancelled if the agent is to end before its outcome is known.

        Whoever asks before the reading begins shares its outcome, so that a storm of signals is one change.
        """
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        if self._ended:
            self._asked.cancel()
        self._news.set()
        return self._asked

    async def change(self) -> Outcome:
        """Change to the configuration as it is read now, after any change that is under way.

        That it cannot be used is an outcome, and no exception. The wait is cancelled if the agent is told to end before
        the outcome is known.
        """
        return await asyncio.shield(self.ask())

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then drain. A side task that fails ends the agent, loudly.

        Raises:
            UserError: it cannot start; the message says what to do.

        """
        self._stop = stop
        herald = asyncio.create_task(self._herald.run(), name="herald")
        heeding = asyncio.create_task(stop.wait(), name="stop")
        for task in (herald, heeding):
            task.add_done_callback(lambda _: self._news.set())
        try:
            settings, engines, self._spool = await self._unless_stopped(self._prepare())
            try:
                await self._serve(self._built(settings, engines), herald)
            finally:
                await self._spool.close()
        except _StoppedError:
            pass  # before the spool is open there is nothing to drain
        finally:
            self._ended = True
            herald.cancel()
            heeding.cancel()
            if self._asked is not None:
                self._asked.cancel()

    async def _prepare(self) -> tuple[Settings, Mapping[Station, LocalEngine], Spool]:
        settings = await asyncio.to_thread(self._configure)
        self._adopted(settings)
        engines = await asyncio.to_thread(lambda: local_engines(settings, machine.read(), available=available_bytes()))
        return settings, engines, await opened(settings)

    async def _serve(self, box: Box, herald: asyncio.Task[Never]) -> None:
        async with self._engines, asyncio.TaskGroup() as self._side:
            await self._engines.only(box.engines)
            self._begin(box)
            while not self._stop.is_set():
                self._news.clear()
                self._herald.look()
                if box.failure is not None:
                    raise box.failure
                if herald.done():
                    herald.result()  # it ends by a defect alone
                if self._asked is None:
                    await self._news.wait()
                else:
                    asked, self._asked = self._asked, None
                    await self._answer(asked, box)
                    box = self._box or box  # the one that serves now
            self._herald.stopping()
            await box.end()

    async def _answer(self, asked: asyncio.Future[Outcome], box: Box) -> None:
        """Change the configuration and say what became of that, unless the agent is told to end before it is seen."""
        self._herald.reloading()
        try:
            with suppress(_StoppedError):
                outcome = await self._change(box)
                self._tell(outcome)
                asked.set_result(outcome)
        finally:
            asked.cancel()  # which does nothing to one that has its result

    def _tell(self, outcome: Outcome) -> None:
        event, advice = f"configuration.{outcome.state}", _ADVICE.get(outcome.state)
        if advice is None:
            _log.info(event)
            self._herald.reloaded(None)
        else:
            _log.error(event, detail=outcome.detail, advice=advice)
            self._herald.reloaded(f"the last change was {outcome.state.replace('_', ' ')} ({outcome.detail}): {advice}")

    async def _change(self, old: Box) -> Outcome:
        try:
            new = await self._unless_stopped(asyncio.to_thread(self._next, old))
        except UserError as error:
            return Outcome("refused", "; ".join(str(error).splitlines()))
        except _StoppedError:
            raise
        except Exception:  # noqa: BLE001  a box that serves is not ended by what it could not read
            _log.exception("configuration.not_read")
            return Outcome("refused", "it cannot be read for a defect of the agent: see the box's log")
        if new is None:
            return Outcome("unchanged")
        flaw = await self._exchange(old, *new)
        return Outcome("applied") if flaw is None else Outcome("rolled_back", flaw)

    def _next(self, old: Box) -> tuple[Box, Box] | None:
        """Read the configuration and build what it asks for, beside the box that serves; None if it is the same.

        Returns:
            What serves while the new models load, and the new box.

        Raises:
            UserError: it cannot be used.

        """
        settings = self._configure()
        if settings == old.settings:
            return None
        fixed = [key for key in _FIXED if attrgetter(key)(settings) != attrgetter(key)(old.settings)]
        if fixed:
            raise UserError(f"{fixed[0]} cannot change while the agent runs: restart it for that")
        new = self._built(settings, local_engines(settings, machine.read(), running=old.engines))
        all_stay = {*old.engines.values()} <= {*new.engines.values()}
        return old if all_stay else self._built(old.settings, old.engines), new

    def _built(self, settings: Settings, engines: Mapping[Station, LocalEngine]) -> Box:
        service = Service(settings, self._spool, engines, desired=self._desired, announced=self._news.set)
        return Box(settings, engines, service)

    async def _exchange(self, old: Box, meanwhile: Box, new: Box) -> str | None:
        """Let a new box take the place of an old one; return why it does not, if it did not become healthy."""
        broker = old.online
        flaw = await self._load(old, meanwhile, new)
        if flaw is not None:
            await self._engines.only(old.engines)  # which is all that `meanwhile` lacks
            return flaw
        await self._end(meanwhile)
        self._adopted(new.settings)
        self._begin(new)
        flaw = await self._unless_stopped(self._reached(new, broker=broker))
        if flaw is not None:
            back = await asyncio.to_thread(self._built, old.settings, old.engines)
            await self._end(new)
            await self._engines.only(old.engines)
            self._adopted(old.settings)
            self._begin(back)
        return flaw

    async def _load(self, old: Box, meanwhile: Box, new: Box) -> str | None:
        """Serve the new box's engines, in the place of those that it has not; return why one does not load."""
        fresh = [engine for engine in new.engines.values() if engine not in self._engines]
        _log.info("configuration.changing", engines_kept=len(new.engines) - len(fresh))
        if meanwhile is not old:
            await self._end(old)
        await self._engines.only(new.engines)
        if meanwhile is not old:
            self._begin(meanwhile)
        # That an engine which was here before has failed is no fault of the new configuration.
        failed = await self._unless_stopped(self._engines.loaded(fresh))
        return None if failed is None else failure_of(failed)

    def _begin(self, box: Box) -> None:
        self._box = box
        box.begin(self._side).add_done_callback(lambda _: self._news.set())
        if self._reported is not None:
            box.service.report(self._reported)
        self._herald.began(box)

    async def _end(self, box: Box) -> None:
        await box.end()
        if self._stop.is_set():
            raise _StoppedError

    async def _reached(self, box: Box, *, broker: bool) -> str | None:
        """Wait until a box that has begun is at work; return why it will not be.

        Args:
            box: the box.
            broker: whether it is to reach the broker, as the one before had.

        """
        try:
            async with asyncio.timeout(_SUBSCRIBED_S):
                while broker and not box.online and box.failure is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            mqtt = box.settings.mqtt
            return f"the broker at {mqtt.host}:{mqtt.port} was not reached within {_SUBSCRIBED_S:.0f} s"
        return box.flaw

    async def _unless_stopped(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do something that may take long.

        Raises:
            _StoppedError: the agent was told to end before it was done.

        """
        doing, stopped = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([doing, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise _StoppedError
            return doing.result()
        finally:
            doing.cancel()
            stopped.cancel()


class _StoppedError(Exception):
    """The agent was told to end."""


async def opened(settings: Settings) -> Spool:
    """Open the spool, however long its disk is sick: the box stays offline, and the broker keeps the requests."""
    room = Room(settings.spool.max_jobs, settings.spool.max_bytes)
    while True:
        try:
            return await Spool.open(settings.spool_file, room)
        except SpoolSick as sick:
            _log.error("spool.sick", error=str(sick), retry_in_s=_SICK_DISK_S)
        await asyncio.sleep(_SICK_DISK_S)
