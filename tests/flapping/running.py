"""One run: a real broker, a real box with its model, and a cloud that flaps."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import psutil

from agent.standin import KEY, MODELS, Fault, StandIn, at_random
from tests.boxes import Box, read_log
from tests.brokers import Broker
from tests.cloud.serving import serving
from tests.flapping.asking import Asker, arrive
from tests.flapping.history import Down, History
from tests.flapping.story import LASTING

_CLIENTS = {"north": "5", "south": "3.1.1", "east": "5"}
# The small model answers about 1.7 such jobs a second, on two cores.
_RATE = 4.0
# Of a turn, how long the cloud is well again in the end.
_WELL_AGAIN = 0.4
# For the last answers: deadlines are shorter, and jobs without one wait for those that have.
_REST_S = 120.0
# After these the cloud is left alone for a minute or for hours, and nothing would be seen of the others. So at random
# there is one of them at a time, and after it the box is restarted, as by whoever has mended the key.
_LONG = LASTING | {Fault.UNAVAILABLE, Fault.RATE_LIMITED, Fault.PORTAL, Fault.REDIRECT}
_RARE = [fault for fault in Fault if fault in _LONG]
_OFTEN = [fault for fault in Fault if fault not in _LONG]


class Run:
    """Carries a run out.

    Args:
        box: not started yet.
        log: its log.
        standin: the cloud.
        askers: the devices.
        history: what is seen.
        random: of all that is random.
        say: is told now and then how it stands.

    """

    def __init__(
        self,
        box: Box,
        log: Path,
        standin: StandIn,
        askers: list[Asker],
        history: History,
        random: Random,
        say: Callable[[str], object],
    ) -> None:
        self._box = box
        self._log = log
        self._standin = standin
        self._askers = askers
        self._history = history
        self._random = random
        self._say = say
        self._phase = ""

    async def carry_out(self, faults: Sequence[Fault], turn_s: float, random_s: float) -> None:
        """Have each fault for a while, and then all of them at random."""
        await self._start()
        for fault in faults:
            self._begin(fault.name)
            self._standin.always = fault
            await self._ask(turn_s)
            self._standin.always = None
            await self._ask(turn_s * _WELL_AGAIN)
            await self._settle()
            await self._restart()
        self._begin("at random")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ask(random_s))
            tasks.create_task(self._weather(time.monotonic() + random_s))
        self._standin.always = None
        await self._settle()
        await self._box.stop()

    async def _weather(self, until: float) -> None:
        """Change how the cloud is, now and then."""

        async def for_a_while() -> None:
            await asyncio.sleep(min(self._random.uniform(1, 8), max(0.0, until - time.monotonic())))

        for number in count():
            for share in (0.05, self._random.uniform(0.4, 1)):
                self._standin.always = at_random(self._random, share, _OFTEN)
                await for_a_while()
            if number % 2 == 0:
                self._standin.plan.append(self._random.choice(_RARE))
                await for_a_while()
                self._standin.plan.clear()
            if time.monotonic() >= until:
                return
            if number % 2 == 0:
                await self._restart(kill=number % 4 == 0)

    async def _ask(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await arrive(self._askers, self._random, _RATE, self._phase)

    async def _settle(self) -> None:
        """Wait for every job's final, or so long that it will have none."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_REST_S):
                await asyncio.gather(*(asker.settle() for asker in self._askers))

    async def _restart(self, *, kill: bool = False) -> None:
        since = time.time()
        await (self._box.kill() if kill else self._box.stop())
        await self._start()
        self._history.down.append(Down(since, time.time()))

    async def _start(self) -> None:
        """Start the box, and wait until it can be asked; its whole log is long to read."""
        with self._log.open("a+") as log:
            log.seek(0, 2)
            self._box.start()
            said = ""
            while not all(f'"{event}"' in said for event in ("mqtt.connected", "engine.model_loaded")):
                assert psutil.Process(self._box.pid).status() != psutil.STATUS_ZOMBIE, said
                await asyncio.sleep(0.02)  # a file offers nothing to wait on
                said += log.read()

    def _begin(self, phase: str) -> None:
        self._phase = phase
        answered = len(self._history.finals())
        self._say(f"{phase}: {len(self._history.asked)} asked, {answered} answered, {self._standin!r}")


async def run(
    directory: Path,
    model: Path,
    *,
    faults: Sequence[Fault],
    turn_s: float,
    random_s: float,
    seed: int,
    say: Callable[[str], object],
) -> History:
    """Set the stage, have each fault in turn and then all at random on it, and return what was seen.

    Args:
        directory: where everything's files go.
        model: the text model's folder.
        faults: those that have a turn.
        turn_s: how long each has it.
        random_s: how long there are all of them at random.
        seed: of what is random.
        say: is told now and then how it stands.

    """
    history = History()
    standin = StandIn(first_token_s=0.15, tokens_per_s=150)
    key = directory / "key"
    key.write_text(KEY)
    loop = asyncio.get_running_loop()
    epoch = time.time() - loop.time()
    async with AsyncExitStack() as stack:
        base_url = await stack.enter_async_context(serving(standin))
        broker_home = directory / "broker"
        broker_home.mkdir()
        broker = stack.enter_context(Broker(broker_home, "max_queued_messages 0"))
        askers = [Asker(broker.port, name, version, history) for name, version in _CLIENTS.items()]
        for asker in askers:
            await stack.enter_async_context(asker)
        box = Box(directory, broker.port, model, cloud=_cloud(base_url, key))
        stack.push_async_callback(box.kill)
        log = directory / "agent.log"
        await Run(box, log, standin, askers, history, Random(seed), say).carry_out(faults, turn_s, random_s)
        history.received_by(lambda moment: epoch + moment, standin.requests)
    history.log, history.unread = read_log(log)
    return history


def _cloud(base_url: str, key: Path) -> dict[str, Any]:
    return {
        "enabled": True,
        "base_url": base_url,
        "api_key_file": str(key),
        "text_model": MODELS[0],
        "requests_per_minute": 6000,
    }
