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
from operator import attrgetter
from typing import Any, TypeVar

import structlog

from agent.ageing import Ageing
from agent.asks import Ask, Asks, Outcome
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
from agent.stations import cloud_key, local_engines
from agent.systemd import Systemd
from agent.threads import apart

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")

# Between two tries to open the spool on a disk that is full, read-only or failing.
_SICK_DISK_S = 10.0
# How long a new configuration may take to reach the broker, where the one before had reached it: a name server and TLS
# over a bad link take seconds, a broker that is started anew at the same time half a minute.
_SUBSCRIBED_S = 60.0
# What is under way is stored and answered under these, so that only a new start can change them.
_FIXED = ("device.id", "mqtt.root", "state_dir", "spool.max_jobs", "spool.max_bytes")
# What decides whether the broker is reached, and takes the subscriptions; nothing else is to blame if that fails.
_ONLINE_BY = ("mqtt", "pool", "sources", "remote_config")
_ADVICE = {
    "refused": "mend it and reload again; the box goes on as it was",
    "rolled_back": "mend it and reload again; the configuration before is back, until the next start reads this one",
}


class Supervisor:
    """Runs the box, and changes its configuration.

    Args:
        configure: reads every layer of the configuration anew; called in a thread. Raises `UserError`.
        desired: is given what is published on the topic of remote configuration; see `Service`.
        adopted: called with a configuration when it comes into force, and when an earlier one comes back.
        shelve: is told why the box cannot start with a configuration, and says whether to read it once more.
        systemd: is told how the box is.

    """

    def __init__(
        self,
        configure: Callable[[], Settings],
        *,
        desired: Callable[[bytes], None] | None = None,
        adopted: Callable[[Settings], None] = lambda _: None,
        shelve: Callable[[UserError], bool] = lambda _: False,
        systemd: Systemd | None = None,
    ) -> None:
        self._configure = configure
        self._desired = desired
        self._adopted = adopted
        self._shelve = shelve
        self._engines = Engines()
        self._herald = Herald(systemd or Systemd({}), self._engines)
        self._stop = asyncio.Event()
        self._news = asyncio.Event()
        self._asked = Asks()
        self._filters: frozenset[str] = frozenset()  # all that were subscribed to
        self._reported: bytes | None = None
        self._box: Box | None = None

    def __repr__(self) -> str:
        return f"<Supervisor {self._herald.status}>"

    def report(self, payload: bytes) -> None:
        """Publish what became of the remote configuration, now and by every later service; see `Service.report`."""
        self._reported = payload
        if self._box is not None:
            self._box.service.report(payload)

    def ask(
        self, configure: Callable[[], Settings] | None = None, taken: Callable[[], None] = lambda: None
    ) -> asyncio.Future[Outcome]:
        """Have the configuration read anew; the future is cancelled if the agent is to end before its outcome is known.

        Args:
            configure: reads it, for this time alone; as `Supervisor` was given it, if left out.
            taken: called when the box runs with what was read, before anything else is.

        """
        outcome = self._asked.add(configure or self._configure, taken)
        self._herald.asked()
        self._news.set()
        return outcome

    async def change(
        self, configure: Callable[[], Settings] | None = None, taken: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Change to the configuration as it is read now, after any change that is under way; see `ask`.

        That it cannot be used is an outcome, and no exception. The wait is cancelled if the agent is told to end before
        the outcome is known.
        """
        return await asyncio.shield(self.ask(configure, taken))

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then drain. A side task that fails ends the agent, loudly.

        Raises:
            UserError: it cannot start; the message says what to do.

        """
        self._stop = stop
        self._heralding = herald = asyncio.create_task(self._herald.run(), name="herald")
        heeding = asyncio.create_task(stop.wait(), name="stop")
        for task in (herald, heeding):
            task.add_done_callback(lambda _: self._news.set())
        try:
            settings, engines, self._spool = await self._unless_stopped(self._prepare())
            self._ageing = Ageing(self._spool)
            try:
                await self._serve(self._built(settings, engines))
            finally:
                await self._spool.close()
        except _StoppedError:
            pass  # before the spool is open there is nothing to drain
        finally:
            herald.cancel()
            heeding.cancel()
            self._asked.end()

    async def _prepare(self) -> tuple[Settings, Mapping[Station, LocalEngine], Spool]:
        settings = await apart(self._configure)
        self._adopted(settings)
        try:
            engines = await apart(lambda: local_engines(settings, machine.read(), available=available_bytes()))
        except UserError as error:
            if not self._shelve(error):
                raise
            return await self._prepare()
        return settings, engines, await opened(settings)

    async def _serve(self, box: Box) -> None:
        async with self._engines, asyncio.TaskGroup() as self._side:
            await self._engines.only(box.engines)
            self._begin(box)
            while not self._stop.is_set():
                self._news.clear()
                self._herald.look()
                self._raise_failure(box)
                if self._asked:
                    await self._answer(self._asked.next(), box)
                    box = self._box or box  # the one that serves now
                else:
                    await self._news.wait()
            self._herald.stopping()
            await box.end()

    def _raise_failure(self, box: Box | None) -> None:
        if box is not None and box.failure is not None:
            raise box.failure
        if self._heralding.done():
            self._heralding.result()  # it ends by a defect alone

    async def _answer(self, ask: Ask, box: Box) -> None:
        """Change the configuration and say what became of that, unless the agent is told to end before it is seen."""
        self._herald.reloading()
        try:
            with suppress(_StoppedError):
                outcome = await self._change(ask.configure, box)
                self._tell(outcome)
                if outcome.state in ("applied", "unchanged"):
                    ask.taken()
                ask.outcome.set_result(outcome)
        finally:
            ask.outcome.cancel()  # which does nothing to one that has its result

    def _tell(self, outcome: Outcome) -> None:
        event, advice = f"configuration.{outcome.state}", _ADVICE.get(outcome.state)
        if advice is None:
            _log.info(event)
            self._herald.reloaded(None)
        else:
            _log.error(event, detail=outcome.detail, advice=advice)
            self._herald.reloaded(f"the last change was {outcome.state.replace('_', ' ')} ({outcome.detail}): {advice}")

    async def _change(self, configure: Callable[[], Settings], old: Box) -> Outcome:
        try:
            boxes = await self._unless_stopped(apart(lambda: self._next(configure, old)))
        except UserError as error:
            return Outcome("refused", "; ".join(str(error).splitlines()))
        except _StoppedError:
            raise
        except Exception:  # noqa: BLE001  a box that serves is not ended by what it could not read
            _log.exception("configuration.not_read")
            return Outcome("refused", "it cannot be read for a defect of the agent: see the box's log")
        if boxes is None:
            return Outcome("unchanged")
        flaw = await self._exchange(old, *boxes)
        return Outcome("applied") if flaw is None else Outcome("rolled_back", flaw)

    def _next(self, configure: Callable[[], Settings], old: Box) -> tuple[Box, Box, Box] | None:
        """Read the configuration and build what it asks for, beside the box that serves; None if it is the same.

        Returns:
            What serves while the new models load, the new box, and one as the old that may have to follow it.

        Raises:
            UserError: it cannot be used.

        """
        settings = configure()
        if any(engine.stuck for engine in self._engines):
            raise UserError("an inference process cannot be ended, and holds its device and memory: restart the box")
        fixed = [key for key in _FIXED if attrgetter(key)(settings) != attrgetter(key)(old.settings)]
        if fixed:
            raise UserError(f"{fixed[0]} cannot change while the agent runs: restart it for that")
        engines = local_engines(settings, machine.read(), running=old.engines)
        new = self._built(settings, engines)
        # What the settings name may have changed where they have not: a model, or the cloud's key.
        if (settings, engines, new.key) == (old.settings, old.engines, old.key):
            return None
        before, after = {*old.engines.values()}, {*engines.values()}
        try:
            back = self._built(old.settings, old.engines)
            meanwhile = self._built(old.settings, old.engines) if before - after and after - before else old
        except UserError as error:
            raise UserError(f"there is no way back from it, so restart the box for it: {error}") from error
        return meanwhile, new, back

    def _built(self, settings: Settings, engines: Mapping[Station, LocalEngine]) -> Box:
        key = cloud_key(settings)  # before the service reads it: one that changes meanwhile is then found to differ
        service = Service(
            settings, self._spool, engines, desired=self._desired, announced=self._news.set, ageing=self._ageing
        )
        return Box(settings, engines, service, key)

    async def _exchange(self, old: Box, meanwhile: Box, new: Box, back: Box) -> str | None:
        """Let a new box take the place of an old one; return why it does not, if it did not become healthy."""
        broker = old.online
        fresh = [engine for engine in new.engines.values() if engine not in self._engines]
        _log.info("configuration.changing", engines_kept=len(new.engines) - len(fresh))
        flaw = await self._load(fresh, old, meanwhile, new) if fresh else None
        if flaw is not None:
            await self._engines.only(old.engines)  # which is all that `meanwhile` lacks
            return flaw
        await self._end(meanwhile)
        await self._engines.only(new.engines)
        self._adopted(new.settings)
        self._begin(new)
        flaw = await self._unless_stopped(self._reached(new, old, broker=broker))
        if flaw is not None:
            await self._end(new)
            await self._engines.only(old.engines)
            self._adopted(old.settings)
            self._begin(back)
        return flaw

    async def _load(self, fresh: list[LocalEngine], old: Box, meanwhile: Box, new: Box) -> str | None:
        """Serve the new box's engines, in the place of those that it has not; return why one does not load."""
        if meanwhile is not old:
            await self._end(old)
        await self._engines.only(new.engines)
        if meanwhile is not old:
            self._begin(meanwhile)
        # That an engine which was here before has failed is no fault of the new configuration.
        failed = await self._unless_stopped(self._engines.loaded(fresh), serving=meanwhile)
        return None if failed is None else failure_of(failed)

    def _begin(self, box: Box) -> None:
        self._box = box
        self._filters |= box.service.filters
        box.service.former = self._filters - box.service.filters
        box.begin(self._side).add_done_callback(lambda _: self._news.set())
        if self._reported is not None:
            box.service.report(self._reported)
        self._herald.began(box)

    async def _end(self, box: Box) -> None:
        await box.end()
        if self._stop.is_set():
            raise _StoppedError

    async def _reached(self, box: Box, old: Box, *, broker: bool) -> str | None:
        """Wait until a box that has begun is at work; return why it will not be.

        Args:
            box: the box.
            old: the one before.
            broker: whether that one had reached the broker.

        """
        try:
            async with asyncio.timeout(_SUBSCRIBED_S):
                while broker and not box.online and box.failure is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            mqtt = box.settings.mqtt
            if any(getattr(box.settings, key) != getattr(old.settings, key) for key in _ONLINE_BY):
                return f"the broker at {mqtt.host}:{mqtt.port} was not reached within {_SUBSCRIBED_S:.0f} s"
        return box.flaw

    async def _unless_stopped(self, work: Coroutine[Any, Any, _T], serving: Box | None = None) -> _T:
        """Do something that may take long, while a box may serve.

        Raises:
            _StoppedError: the agent was told to end before it was done.
            Exception: the box failed.

        """
        doing, stopped = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        sides = [stopped, *([] if serving is None else [self._heralding, serving.running])]
        try:
            await asyncio.wait([doing, *sides], return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                self._raise_failure(serving)
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
