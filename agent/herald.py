"""Tells systemd how the box is: when it is ready, what it does, and that it lives."""

import asyncio
import math
from collections.abc import Collection
from typing import Literal, Never

from agent.box import END_S, Box
from agent.engines.local import LocalEngine
from agent.systemd import Systemd

# Between two looks at how the box is, if the watchdog does not want to hear of us more often.
_BEAT_S = 5.0
# How much time is asked for with each look while the box is not ready: for many looks, as the machine may be busy.
_EXTEND_S = 60.0
# After the service: the engines, and the spool.
_LAST_S = 10.0


class Herald:
    """Knows what the box does, and tells it.

    Ready is a box that is online, whose models have loaded or failed to. Until then more time is asked for, whatever it
    waits for: a broker that is away, a large model, a sick disk; a new start would only wait for the same.

    Args:
        systemd: is told.
        engines: those that are served; one that is stuck is not to be kept alive.

    """

    def __init__(self, systemd: Systemd, engines: Collection[LocalEngine]) -> None:
        self._systemd = systemd
        self._engines = engines
        self._phase: Literal["starting", "serving", "reloading", "draining"] = "starting"
        self._box: Box | None = None
        self._ready = False
        self._was_ready = False
        self._regret: str | None = None
        self._told = ""

    def __repr__(self) -> str:
        return f"<Herald {self.status}>"

    @property
    def status(self) -> str:
        """A word for how the box is, which scripts may read, a colon, and what there is to say."""
        box = self._box
        if box is None:
            return "starting: the configuration is read and the spool is opened"
        told = box.status if self._phase == "serving" else f"{self._phase}: {box.status.partition(': ')[2]}"
        loads = box.service.dispatcher.loads.values()
        jobs = f"{sum(each.active for each in loads)} jobs run, {sum(each.queued for each in loads)} wait"
        return "; ".join(filter(None, (told, jobs, self._regret)))

    def began(self, box: Box) -> None:
        """Take note that a box begins."""
        self._box = box
        if self._phase == "starting":
            self._phase = "serving"
        self.look()

    def reloading(self) -> None:
        """Take note that the configuration is about to change."""
        self._phase = "reloading"
        self._was_ready, self._ready = self._ready, False
        if self._was_ready:
            self._systemd.reloading()
        self.look()

    def asked(self) -> None:
        """Take note that another change is wanted; a model that loads may hold it up for long."""
        if self._phase == "reloading":
            self._regret = "another change waits for the end of this one"
            self.look()

    def reloaded(self, regret: str | None) -> None:
        """Take note that this is over; it is to be regretted where the box is not as it was to become."""
        self._phase, self._regret = "serving", regret
        self._ready = self._was_ready and self._systemd.ready()
        self.look()

    def stopping(self) -> None:
        """Take note that the box ends."""
        self._phase = "draining"
        self._systemd.stopping()
        if self._box is not None:  # `drain_s` may have been set from afar, where nobody edits a unit
            self._systemd.extend(self._box.settings.drain_s + END_S + _LAST_S)
        self.look()

    def look(self) -> None:
        """Tell how the box is now."""
        if self._phase == "serving" and not self._ready and self._box is not None and self._box.settled:
            self._ready = self._systemd.ready()
        status = self.status
        if status != self._told:  # each one is passed on to whoever listens on the system's bus
            self._told = status
            self._systemd.status(status)

    async def run(self) -> Never:
        """Tell it now and then, and that the process lives, as long as that is so.

        This task shows that the loop runs, and with it everything that is a task of it: one that fails ends the agent.
        A worker that cannot be killed holds its device and its memory: only a new start may get them back. A disk that
        hangs does not count: a new start would wait for the same disk, and lose what the models have in memory.
        """
        every_s = min(_BEAT_S, (self._systemd.watchdog_s or math.inf) / 3)
        while True:
            if not any(engine.stuck for engine in self._engines):
                self._systemd.alive()
            if not self._ready and self._phase != "draining":
                self._systemd.extend(_EXTEND_S)
            self.look()
            await asyncio.sleep(every_s)
