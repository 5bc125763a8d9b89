"""What is known of how fast each model is, kept across restarts."""

from collections.abc import Callable, Mapping

import structlog

from agent.forecast import Estimator
from agent.line import Line
from agent.placement import Station
from agent.spool import Spool, SpoolError

_log = structlog.get_logger(__name__)


class Rates:
    """Keeps the estimators' knowledge on disk, by model and execution provider: another provider is another machine.

    Args:
        spool: where it is kept.
        lines: whose estimators they are.
        fresh: makes an estimator that knows nothing.

    """

    def __init__(self, spool: Spool, lines: Mapping[Station, Line], fresh: Callable[[], Estimator]) -> None:
        self._spool = spool
        self._lines = lines
        self._fresh = fresh
        self._kept: dict[str, bytes] = {}
        self._named: dict[Station, str] = {}

    async def restore(self) -> None:
        """Take up what an earlier run has measured."""
        self._kept = await self._spool.rates()
        self.follow()

    def follow(self) -> None:
        """Take up what is known of an engine that has changed: its model, its provider, or that it has loaded."""
        for station, line in self._lines.items():
            health = line.engine.health
            name = f"{health.model} on {health.provider}"
            if self._named.get(station) != name:
                self._named[station] = name
                line.estimator = self._fresh()
                if name in self._kept:
                    line.estimator.load(self._kept[name])
            line.estimator.context = health.context
            if health.state == "ready" and health.load_s is not None:
                line.estimator.loaded(health.load_s)

    async def keep(self) -> None:
        """Write down what is new."""
        for station, line in self._lines.items():
            name, value = self._named[station], line.estimator.dump()
            if self._kept.get(name) == value:
                continue
            try:
                await self._spool.keep_rates(name, value)
            except SpoolError as error:
                _log.warning("rates.not_kept", model=name, error=str(error))
            else:
                self._kept[name] = value
