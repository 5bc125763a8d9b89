"""One configuration at work: its engines and its service, and how far they have come."""

import asyncio
from collections.abc import Mapping

import structlog

from agent.engines.local import LocalEngine
from agent.errors import UserError
from agent.placement import Station
from agent.service import Service
from agent.settings import Settings

_log = structlog.get_logger(__name__)

# How long the end of a service may take beyond `drain_s` before it is cancelled: five for the intake, two for jobs that
# are let go, five for the last finals, six for a broker that does not answer the goodbye, five for the rates, and room.
# What hangs for longer is something that nobody thought of, such as a disk under the very first read.
END_S = 25.0


class Box:
    """A service and its local engines.

    Args:
        settings: what they were built from.
        engines: served by whoever has the box, since they may outlive it.
        service: not yet run.
        key: the cloud's, as the service has it.

    Attributes:
        failure: what ended the service, if it did not end as it was told to. It is kept, for whoever has the box to
            know whether it is on trial.

    """

    def __init__(
        self, settings: Settings, engines: Mapping[Station, LocalEngine], service: Service, key: str | None
    ) -> None:
        self.settings = settings
        self.engines = engines
        self.service = service
        self.key = key
        self.failure: Exception | None = None
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Box {self.status}>"

    @property
    def online(self) -> bool:
        """Whether it can be asked: connected and subscribed."""
        return self.service.bus.connected

    @property
    def settled(self) -> bool:
        """Whether it is as far as it comes by itself: online, and each model has loaded or failed to."""
        return self.online and all(engine.health.state != "loading" for engine in self.engines.values())

    @property
    def status(self) -> str:
        """A word for how it is, which scripts may read, a colon, and what there is to say."""
        engines = self.engines.values()
        failed = [failure_of(engine) for engine in engines if engine.health.state == "failed"]
        loading = [engine.health.model for engine in engines if engine.health.state == "loading"]
        if failed:
            return f"ailing: {', '.join(failed)}"
        if loading:
            return f"loading: {', '.join(loading)}"
        if not self.online:
            return f"connecting: no broker at {self.settings.mqtt.host}:{self.settings.mqtt.port} yet"
        return f"serving: {', '.join(f'{engine.health.model} on {engine.health.provider}' for engine in engines)}"

    @property
    def running(self) -> asyncio.Task[None]:
        """The service, which has begun; it ends without an exception."""
        assert self._running is not None  # noqa: S101
        return self._running

    def begin(self, side: asyncio.TaskGroup) -> asyncio.Task[None]:
        """Run the service."""
        self._running = side.create_task(self._run(), name="service")
        return self._running

    async def end(self) -> None:
        """Drain the service, in bounded time."""
        self._stop.set()
        await asyncio.wait([self.running], timeout=self.settings.drain_s + END_S)
        if not self.running.done():
            _log.warning("service.stopped_at_once")
            self.running.cancel()
            await asyncio.wait([self.running])

    @property
    def flaw(self) -> str | None:
        """What ended the service, if it failed, in a sentence."""
        match self.failure:
            case None:
                return None
            case UserError():
                return str(self.failure)
            case _:  # what it says may hold words of a job, and this is told to everybody
                return "a defect ended it: see the box's log"

    async def _run(self) -> None:
        try:
            await self.service.run(self._stop)
        except Exception as failure:  # noqa: BLE001  it is raised, or told, by whoever has the box
            _log.exception("service.failed")
            self.failure = failure


def failure_of(engine: LocalEngine) -> str:
    """Tell in a sentence that an engine has failed."""
    return f"model {engine.health.model} cannot be loaded ({engine.health.detail})"
