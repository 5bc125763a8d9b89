"""A box under observation: ``python -m agent.bench.child fake|watched CONFIG``.

``fake`` has an engine that answers at once, so that everything else is what takes the time. ``watched`` is the
real box, with a probe on its event loop: it asks to be woken every few milliseconds, and how late it is woken is
how long something held the loop. The longest stall, in seconds, is kept in ``stall`` beside the configuration.
"""

import asyncio
import signal
import sys
from pathlib import Path

from agent import logs
from agent.layers import load
from agent.service import Service
from agent.settings import Settings
from agent.spool import Spool
from agent.supervisor import Supervisor
from agent.testing import FakeEngine

_PROBE_S = 0.005


async def _probe(report: Path) -> None:
    loop, longest = asyncio.get_running_loop(), 0.0
    while True:
        asked = loop.time()
        await asyncio.sleep(_PROBE_S)
        stalled = loop.time() - asked - _PROBE_S
        if stalled > longest:
            longest = stalled
            report.write_text(f"{longest:.6f}", encoding="ascii")  # noqa: ASYNC240  after the measurement


async def _main(mode: str, config: Path) -> None:
    settings = load([config]).settings
    logs.configure(settings.log.level)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if mode == "fake":
        await _fake(settings, stop)
        return
    probe = asyncio.create_task(_probe(config.parent / "stall"))
    await Supervisor(lambda: settings).run(stop)
    probe.cancel()


async def _fake(settings: Settings, stop: asyncio.Event) -> None:
    answers = FakeEngine(settings.engine.slots, ["Hello", " world"])
    spool = await Spool.open(settings.spool_file)
    await Service(settings, spool, {"text" if settings.models.vision is None else "vision": answers}).run(stop)
    await spool.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2])))
