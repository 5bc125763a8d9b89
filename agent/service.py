"""The composition root of one configuration: every room is built here, run in one TaskGroup, and shut down in order."""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Never

import structlog

from agent import __version__, status
from agent.accounts import Accounts
from agent.admission import Signals, Ticket
from agent.ageing import Ageing
from agent.budget import Budget
from agent.bus import Delivery, MqttBus, Subscription
from agent.cameras import Cameras
from agent.contract.body import Bounds
from agent.contract.events import Final
from agent.contract.jobs import Key
from agent.contract.messages import Outgoing
from agent.contract.requests import Limits
from agent.contract.sources import Source
from agent.contract.topics import Topics
from agent.dispatcher import Dispatcher
from agent.engines.base import Engine, SimilarFrame
from agent.forecast import Estimator
from agent.intake import Intake
from agent.metrics import Counters
from agent.outbox import Outbox
from agent.placement import Station
from agent.rates import Rates
from agent.reception import Reception
from agent.settings import Settings
from agent.signals import Watch
from agent.spool import Spool, SpoolError, SpoolSick
from agent.stations import cloud_engine, lines

_log = structlog.get_logger(__name__)

# How long the last finals may take to reach the broker at shutdown; those that do not stay in the spool.
_FLUSH_S = 5.0
# For the disk to take the requests that have arrived; the broker still has those that it does not take.
_INTAKE_S = 5.0
# Between two tries to read a disk that was well when the spool was opened.
_SICK_DISK_S = 10.0
# Memory and temperature change within seconds; reading them takes a millisecond.
_SENSE_EVERY_S = 2.0
# What the rates were a minute ago is as good a start as any.
_KEEP_RATES_EVERY_S = 60.0


class Service:
    """A box with one configuration, which its constructor only checks: nothing is touched before `run`.

    Args:
        settings: its configuration.
        spool: open; it outlives the service.
        local: what answers here; whoever passes them serves them, before and after.
        desired: is given each message on the topic of remote configuration, on the event loop; it must not block.
        announced: called each time that the box has changed, or that the broker hears of it.
        ageing: of the spool, with which it outlives the service; None if nothing follows this one.

    Attributes:
        filters: what it subscribes to.
        former: topic filters of earlier services, which this one has not: the broker's session still has them.

    Raises:
        UserError: what is configured cannot be used.

    """

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        local: Mapping[Station, Engine],
        *,
        desired: Callable[[bytes], None] | None = None,
        announced: Callable[[], None] = lambda: None,
        ageing: Ageing | None = None,
    ) -> None:
        self.settings = settings
        self.topics = Topics(settings.mqtt.root, settings.device.id, settings.pool)
        self.counters = Counters()
        self._signals = Signals()
        self._desired = desired if settings.remote_config else None
        self._announced = announced
        self._reported: bytes | None = None
        self.spool = spool
        cameras = Cameras(settings.cameras, settings.sources)
        self._budget = Budget(
            settings.cloud.budget, settings.cloud.price, default_max_tokens=settings.limits.max_tokens
        )
        self.accounts = Accounts(self._budget, spool, self._left)
        cloud = cloud_engine(settings, self.accounts, cameras.keeps)
        self.engines: dict[Station, Engine] = {**local} if cloud is None else {**local, "cloud": cloud}
        sources = [Source(name, each.topic, each.camera) for name, each in settings.sources.items()]
        subscriptions = [
            # First, so that no new frame is asked about by an old prompt.
            Subscription(self.topics.camera_config("+"), retained=True),
            *map(Subscription, self.topics.requests),
            *(Subscription(source.filter) for source in sources),
            *(
                []
                if self._desired is None
                else [Subscription(self.topics.config_desired, retained=True, optional=True)]
            ),
        ]
        self.filters = frozenset(each.filter for each in subscriptions)
        self.former: frozenset[str] = frozenset()
        self.bus = MqttBus(
            settings.mqtt,
            self.topics,
            subscriptions,
            receive=self._receive,
            on_connected=self._greet,
            on_new_session=self._forget_cameras,
        )
        self.outbox = Outbox(spool, self.bus, self.topics)
        self._ageing = ageing or Ageing(spool)
        stations = lines(settings, local, cloud)
        self.rates = Rates(spool, stations, lambda: Estimator(settings.limits.max_tokens))
        self.dispatcher = Dispatcher(
            stations,
            settings.placement,
            self._finish,
            self._restarted,
            topics=self.topics,
            send=self.bus.send,
            flush_s=settings.streaming.flush_ms / 1000,
            clock=time.monotonic,
        )
        self.reception = Reception(spool, self.dispatcher, self.outbox, self.counters)
        limits = settings.limits
        self.intake: Intake = Intake(
            self.topics,
            sources,
            cameras,
            Limits(limits.text_bytes, limits.image_bytes, Bounds(limits.images, limits.image_pixels)),
            sees="vision" in local or (cloud is not None and settings.cloud.sees),
            reception=self.reception,
            spool=spool,
            counters=self.counters,
            new_id=lambda: secrets.token_hex(8),
            leave=self.bus.unsubscribe,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then drain. A side task that fails ends the service, loudly."""
        self._loop = asyncio.get_running_loop()
        watch = Watch(self._told_signals, _SENSE_EVERY_S)
        watch.start()
        try:
            await self._remember()
            async with asyncio.TaskGroup() as side:
                healths = {f"health.{station}": self._follow_health(each) for station, each in self.engines.items()}
                tasks = [
                    side.create_task(work, name=name)
                    for name, work in {
                        **healths,
                        **({"engine.cloud": self.engines["cloud"].serve()} if "cloud" in self.engines else {}),
                        "dispatcher": self.dispatcher.run(),
                        "outbox": self.outbox.run(),
                        "bus": self.bus.run(),
                        "metrics": self._tell_metrics(),
                        # A mending of the spool posts finals again, and tells nobody.
                        "ageing": self._ageing.run(self.settings.spool.retention_s, looked=self.outbox.wake),
                        "rates": self._keep_rates(),
                    }.items()
                ]
                _log.info("service.started", node=self.topics.node, version=__version__)
                await stop.wait()
                await self._shut_down()
                for task in tasks:
                    task.cancel()
        finally:
            watch.stop()
        _log.info("service.stopped")

    def report(self, payload: bytes) -> None:
        """Publish, retained, what became of the remote configuration; again whenever the broker hears of the box."""
        self._reported = payload
        if self.bus.connected:
            self.bus.send(Outgoing(self.topics.config_reported, payload, 1, retain=True))

    async def _remember(self) -> None:
        """Take up what is on disk, however long that is sick: the box stays offline, the broker keeps the requests."""
        while True:
            try:
                await self._ageing.look()  # before anything is judged by its age
                await self.intake.remember()
                await self.accounts.remember()
                await self.rates.restore()
                unfinished = await self.spool.recover()
            except SpoolSick as sick:
                _log.error("spool.sick", error=str(sick), retry_in_s=_SICK_DISK_S)
                await asyncio.sleep(_SICK_DISK_S)
            else:
                return await self.reception.recover(unfinished)

    async def _shut_down(self) -> None:
        """Drain, in this order: take no message, start no job, let jobs end, let finals out, say goodbye."""
        loads = self.dispatcher.loads
        _log.info("service.draining", loads={station: (load.active, load.queued) for station, load in loads.items()})
        await self.intake.close(_INTAKE_S)
        left = await self.dispatcher.drain(self.settings.drain_s)
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self.outbox.flush()
        except TimeoutError:
            _log.warning("service.finals_kept", unsent=self.spool.unsent)
        await self.bus.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self.rates.keep()
        _log.info("service.drained", jobs_kept=left)

    def _left(self, key: Key) -> None:
        self.dispatcher.left(key)

    def _receive(self, delivery: Delivery) -> None:
        if self._desired is not None and delivery.message.topic == self.topics.config_desired:
            self._desired(delivery.message.payload)
            delivery.ack()  # it is retained, and so comes again with each connection
        else:
            self.intake.receive(delivery)

    async def _finish(self, ticket: Ticket, final: Final) -> None:
        job, error = ticket.job, final.error
        if not ticket.stored and final.placement.where == "none":
            # Nobody looked at this frame, which is on no disk: no more is its answer.
            self.outbox.send(final, job.reply)
        elif not await self.outbox.finish(final, job.reply, repeatable=job.named):
            return
        self.counters.similar_frames += isinstance(error, SimilarFrame)
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
            egress=final.placement.egress,
            **asdict(final.usage),
            **asdict(final.timing),
        )

    async def _restarted(self, key: Key, attempt: int) -> None:
        try:
            await self.spool.restarted(key, attempt)
        except SpoolError as error:
            # The job need not wait for a sick disk: at worst a crash of the agent now would reuse the number.
            _log.error("attempt.not_stored", client=key.client, id=key.id, error=str(error))

    async def _forget_cameras(self) -> None:
        await self.intake.forget()

    def _greet(self) -> None:
        if self.former:
            self.bus.unsubscribe(sorted(self.former))
        self._announce()
        if self._reported is not None:
            self.report(self._reported)

    def _announce(self) -> None:
        """Tell what this box is, each time the broker hears of it and each time it changes."""
        healths = {station: engine.health for station, engine in self.engines.items()}
        self.bus.send(Outgoing(self.topics.info, status.info(self.settings, healths), 1, retain=True))
        self._announced()

    async def _follow_health(self, engine: Engine) -> Never:
        while True:
            health = await engine.changed()
            self.rates.follow()
            _log.info("engine.changed", state=health.state, model=health.model, detail=health.detail)
            self._announce()

    async def _tell_metrics(self) -> Never:
        tokens, since = 0, time.monotonic()
        cloud = self.engines.get("cloud")
        while True:
            await asyncio.sleep(self.settings.metrics_s)
            now, produced = time.monotonic(), self.counters.completion_tokens
            rate = (produced - tokens) / (now - since)
            tokens, since = produced, now
            payload = status.metrics(
                self.topics.node,
                self.dispatcher.loads,
                self.counters,
                asdict(self.bus.stats),
                engine_bytes={station: engine.resident_bytes for station, engine in self.engines.items()},
                signals=self._signals,
                cloud=None if cloud is None else status.cloud(cloud.health, self._budget.left(time.time())),
                rate=rate,
                unsent=self.spool.unsent,
            )
            self.bus.send(Outgoing(self.topics.metrics, payload, 0))

    def _told_signals(self, signals: Signals) -> None:
        """Take in how the box is; called in the sensors' thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody needs it any more
            self._loop.call_soon_threadsafe(self._sense, signals)

    def _sense(self, signals: Signals) -> None:
        self._signals = signals
        self.dispatcher.sense(signals)

    async def _keep_rates(self) -> Never:
        while True:
            await asyncio.sleep(_KEEP_RATES_EVERY_S)
            await self.rates.keep()
