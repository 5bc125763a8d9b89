"""The composition root: every room is built here, run in one TaskGroup, and shut down in one order."""

import asyncio
import secrets
import signal
import time
from dataclasses import asdict
from typing import Never

import structlog

from agent import __version__, status
from agent.admission import Queue
from agent.bus import Delivery, MqttBus
from agent.contract.events import Final
from agent.contract.jobs import Job, Key
from agent.contract.messages import Outgoing
from agent.contract.requests import Limits
from agent.contract.topics import Topics
from agent.dispatcher import Dispatcher
from agent.engines.base import Engine
from agent.engines.local import LocalEngine
from agent.intake import Intake
from agent.metrics import Counters
from agent.models.store import resolve
from agent.outbox import Outbox
from agent.settings import Settings
from agent.spool import Spool, SpoolError

_log = structlog.get_logger(__name__)

# How long the last finals may take to reach the broker at shutdown; those that do not stay in the spool.
_FLUSH_S = 5.0
# For the disk to take the requests that have arrived; the broker still has those that it does not take.
_INTAKE_S = 5.0
# Old finals are few and cheap to keep: looking for them often would only wear the disk.
_EXPIRE_EVERY_S = 600.0


class Service:
    """One running box.

    Args:
        settings: its configuration.
        spool: open; `run` closes it.
        engine: what answers; by default the local one, with the configured model.

    """

    def __init__(self, settings: Settings, spool: Spool, engine: Engine | None = None) -> None:
        self.settings = settings
        self.topics = Topics(settings.mqtt.root, settings.device.id)
        self.counters = Counters()
        self.spool = spool
        self.engine: Engine = engine or local_engine(settings)
        self.bus = MqttBus(settings.mqtt, self.topics, receive=self._receive, on_connected=self._announce)
        self.outbox = Outbox(spool, self.bus, self.topics)
        self.dispatcher = Dispatcher(
            self.engine,
            Queue(settings.queue.max_jobs),
            self._finish,
            self._restarted,
            topics=self.topics,
            send=self.bus.send,
            flush_s=settings.streaming.flush_ms / 1000,
            clock=time.monotonic,
        )
        limits = Limits(settings.limits.text_bytes, settings.limits.image_bytes)
        self.intake: Intake = Intake(
            self.topics,
            limits,
            spool,
            self.dispatcher,
            self.outbox,
            self.counters,
            new_id=lambda: secrets.token_hex(8),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then drain. A side task that fails ends the service, loudly."""
        try:
            await self.intake.recover(await self.spool.recover())
            async with asyncio.TaskGroup() as side:
                tasks = [
                    side.create_task(work, name=name)
                    for name, work in {
                        "engine": self.engine.serve(),
                        "dispatcher": self.dispatcher.run(),
                        "outbox": self.outbox.run(),
                        "bus": self.bus.run(),
                        "health": self._follow_health(),
                        "metrics": self._tell_metrics(),
                        "expiry": self._expire(),
                    }.items()
                ]
                _log.info("service.started", node=self.topics.node, version=__version__)
                await stop.wait()
                await self._shut_down()
                for task in tasks:
                    task.cancel()
        finally:
            await self.spool.close()
        _log.info("service.stopped")

    async def _shut_down(self) -> None:
        """Drain, in this order: take no message, start no job, let jobs end, let finals out, say goodbye."""
        _log.info("service.draining", running=self.dispatcher.load.active, queued=self.dispatcher.load.queued)
        await self.intake.close(_INTAKE_S)
        left = await self.dispatcher.drain(self.settings.drain_s)
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self.outbox.flush()
        except TimeoutError:
            _log.warning("service.finals_kept", unsent=self.spool.unsent)
        await self.bus.close()
        _log.info("service.drained", jobs_kept=left)

    def _receive(self, delivery: Delivery) -> None:
        self.intake.receive(delivery)

    async def _finish(self, job: Job, final: Final) -> None:
        if not await self.outbox.finish(final, job.reply):
            return
        code = "ok" if final.error is None else str(final.error.code)
        self.counters.finished[code] += 1
        self.counters.completion_tokens += final.usage.completion_tokens
        _log.info(
            "job.finished",
            client=job.client,
            id=job.id,
            state=str(final.outcome),
            code=code,
            attempt=final.attempt,
            where=final.placement.where,
            reason=final.placement.reason,
            **asdict(final.usage),
            **asdict(final.timing),
        )

    async def _restarted(self, key: Key, attempt: int) -> None:
        try:
            await self.spool.restarted(key, attempt)
        except SpoolError as error:
            # The job need not wait for a sick disk: at worst a crash of the agent now would reuse the number.
            _log.error("attempt.not_stored", client=key.client, id=key.id, error=str(error))

    def _announce(self) -> None:
        """Tell what this box is, each time the broker hears of it and each time it changes."""
        self.bus.send(Outgoing(self.topics.info, status.info(self.settings, self.engine.health), 1, retain=True))

    async def _follow_health(self) -> Never:
        while True:
            health = await self.engine.changed()
            _log.info("engine.changed", state=health.state, model=health.model, detail=health.detail)
            self._announce()

    async def _tell_metrics(self) -> Never:
        tokens, since = 0, time.monotonic()
        while True:
            await asyncio.sleep(self.settings.metrics_s)
            now, produced = time.monotonic(), self.counters.completion_tokens
            rate = (produced - tokens) / (now - since)
            tokens, since = produced, now
            payload = status.metrics(
                self.topics.node,
                self.dispatcher.load,
                self.counters,
                asdict(self.bus.stats),
                engine_bytes=self.engine.resident_bytes,
                rate=rate,
                unsent=self.spool.unsent,
            )
            self.bus.send(Outgoing(self.topics.metrics, payload, 0))

    async def _expire(self) -> Never:
        while True:
            try:
                dropped = await self.spool.expire(time.time() - self.settings.spool.retention_s)
            except SpoolError as error:
                _log.error("spool.failed", error=str(error), retry_in_s=_EXPIRE_EVERY_S)
            else:
                _log.debug("spool.expired", finals=dropped)
            await asyncio.sleep(_EXPIRE_EVERY_S)


def local_engine(settings: Settings) -> LocalEngine:
    """Build the engine that runs the configured text model on this box."""
    folder = resolve(settings.models.text, settings.models_dir)
    return LocalEngine(
        # Of a folder only its name is told: where it lies is nobody's business on the wire.
        folder.name,
        folder,
        slots=settings.engine.slots,
        threads=settings.engine.threads,
        default_max_tokens=settings.limits.max_tokens,
    )


async def serve(settings: Settings) -> None:
    """Run a box until SIGTERM or SIGINT; a second signal ends the drain at once.

    Raises:
        ModelError, SpoolError, BusError: it cannot start; the message says what to do.

    """
    engine = local_engine(settings)
    spool = await Spool.open(settings.spool_file)
    try:
        service = Service(settings, spool, engine)
        await _until_signalled(service)
    finally:
        await spool.close()


async def _until_signalled(service: Service) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    running = asyncio.create_task(service.run(stop), name="service")

    def on_signal() -> None:
        if stop.is_set():
            _log.warning("service.stopped_at_once")
            running.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await running
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    except Exception:
        _log.exception("service.failed")
        raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
