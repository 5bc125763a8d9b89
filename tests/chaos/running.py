"""One run: everything real is started, the plan is carried out, and what was seen is kept."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from pathlib import Path
from statistics import median_low
from typing import Any

import pytest

from agent.bench.rig import children
from agent.contract.jobs import Key
from agent.metrics import resident_bytes
from tests.boxes import Box, read_log
from tests.brokers import Broker
from tests.chaos.clients import Client
from tests.chaos.faults import Faults, Unit
from tests.chaos.history import History, Quiet
from tests.chaos.plan import CAMERAS, CLIENTS, Ask, Cancel, Repeat, Settle, Step, Strike
from tests.chaos.proxy import Link
from tests.devices import Device
from tests.filesystems import small_disk

# Jobs under way at a time: enough for both models to be busy and some to wait, whatever is hit.
_WINDOW = 16
# After that, a job whose final does not come no longer holds a place of the window: a broker may have lost it.
_PATIENCE_S = 60.0
# For everything to come to rest: the agent reconnects, and starts its workers again, with delays that grow up to 60 s
# and 30 s. What takes longer is told by the checker.
_REST_S = 300.0
# For what a fault waits for to pass the proxy. Where everything is down already, it strikes all the same.
_MOMENT_S = 3.0
_DISK_BYTES = 64 << 20
# What is momentary in a process at rest is not in all of so many looks.
_LOOKS = 5
# The share of the greedy texts that are asked for again when all is quiet.
_RECITED = 0.1
_CAMERA = {"prompt": "What is in the picture?", "detail": "low", "max_tokens": 16}


@dataclass
class Stage:
    """Everything real that takes part in a run."""

    unit: Unit
    faults: Faults
    clients: dict[str, Client]
    history: History


class Run:
    """Carries a plan out.

    Args:
        stage: what takes part.
        progress: told what is going on, in a line.

    """

    def __init__(self, stage: Stage, progress: Callable[[str], None]) -> None:
        self._stage = stage
        self._progress = progress
        self._slots = asyncio.Semaphore(_WINDOW)
        self._asks: dict[Key, Ask] = {}
        self._striking: asyncio.Task[None] | None = None

    async def carry_out(self, steps: Sequence[Step]) -> None:
        """Do every step, let everything come to rest, and ask again for what the broker lost."""
        await self._rest("warm")
        async with asyncio.TaskGroup() as tasks:
            for number, step in enumerate(steps):
                await self._do(step, tasks)
                if number % 50 == 0:
                    self._tell(f"step {number} of {len(steps)}")
            await self._struck()
        await self._settled()
        await self._ask_again()
        await self._recite()
        await self._rest("end")

    async def _do(self, step: Step, tasks: asyncio.TaskGroup) -> None:
        match step:
            case Ask():
                await self._slots.acquire()
                self._asks[step.key] = step
                self._client(step.key).ask(step)
                tasks.create_task(self._leave_window(step.key))
            case Repeat():
                tasks.create_task(self._after(step.ask.key, lambda client: client.ask(step.ask), step.after_final))
            case Cancel():
                tasks.create_task(self._after(step.key, lambda client: client.cancel(step.key.id), step.after_final))
            case Strike():
                await self._struck()
                self._striking = tasks.create_task(self._strike(step))
            case Settle():
                await self._struck()
                await self._settled()
                await self._rest("left alone")

    async def _leave_window(self, key: Key) -> None:
        await self._final(key)
        self._slots.release()

    async def _after(self, key: Key, act: Callable[[Client], None], after_final: bool) -> None:
        if after_final:
            await self._final(key)
        act(self._client(key))

    async def _final(self, key: Key) -> None:
        """Wait for a job's final, within reason."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                await self._client(key).final(key.id)

    async def _strike(self, strike: Strike) -> None:
        if strike.upon is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_MOMENT_S):
                    await self._stage.history.next(strike.upon)
        await asyncio.sleep(strike.after_s)
        self._stage.history.under_way.append(len(self._unanswered))
        async with asyncio.TaskGroup() as together:
            for fault in strike.faults:
                together.create_task(self._stage.faults.strike(fault))

    async def _struck(self) -> None:
        if self._striking is not None:
            await self._striking

    async def _settled(self) -> None:
        """Wait until every request has been handled, and every final is where its client could hear it."""
        self._tell("settling")
        with suppress(TimeoutError):
            async with asyncio.timeout(_REST_S):
                await self._caught_up()
                while self._stage.history.owed:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # what passes the proxy offers nothing to wait on
                await self._caught_up()

    async def _caught_up(self) -> None:
        await asyncio.gather(*(client.caught_up() for client in self._stage.clients.values()))

    async def _ask_again(self) -> None:
        """Repeat what has no final, as the contract tells a client to do."""
        history, missing = self._stage.history, self._unanswered
        history.repeated.update((ask.key, history.lost(ask.key)) for ask in missing)
        for ask in missing:
            self._client(ask.key).ask(ask)
        if missing:
            await self._settled()

    async def _recite(self) -> None:
        """Ask again, under new ids, for some texts that were written under fire: those of the most attempts first."""
        history = self._stage.history
        finals = {told.key: told.body for told in history.heard if told.kind == "final"}
        greedy = [
            ask
            for key, ask in self._asks.items()
            if ask.fields.get("temperature") == 0 and key in finals and finals[key]["state"] == "SUCCEEDED"
        ]
        greedy.sort(key=lambda ask: finals[ask.key]["attempt"], reverse=True)
        async with asyncio.TaskGroup() as tasks:
            for ask in greedy[: round(len(greedy) * _RECITED)]:
                fields = {name: value for name, value in ask.fields.items() if name != "deadline_s"}
                again = replace(ask, key=Key(ask.key.client, f"again-{ask.key.id}"), fields=fields)
                history.recited[ask.key] = again.key
                await self._do(again, tasks)

    async def _rest(self, name: str) -> None:
        """Have both workers loaded and nothing under way, and take note of what the agent holds then."""
        fields = {"max_tokens": 4, "temperature": 0}
        looks = []
        for number in range(_LOOKS):
            for form in ("text", "picture"):
                key = Key(next(iter(CLIENTS)), f"{name.replace(' ', '-')}-{form}-{number}")
                self._client(key).ask(Ask(key, form, {"prompt": f"What is in picture {number}?", **fields}))
                await self._final(key)
            looks.append(_look(await self._stage.unit.pid()))
        quiet = at_rest(looks)
        self._stage.history.quiet.append(quiet)
        self._tell(f"at rest ({name}): {quiet}")

    @property
    def _unanswered(self) -> list[Ask]:
        return [ask for key, ask in self._asks.items() if not self._client(key).answered(key.id)]

    def _client(self, key: Key) -> Client:
        return self._stage.clients[key.client]

    def _tell(self, what: str) -> None:
        history = self._stage.history
        finals = len({told.key for told in history.heard if told.kind == "final"})
        struck = history.struck.total()
        self._progress(f"{what}: {len(history.asked)} asked, {finals} answered, {struck} faults")


@contextmanager
def own_disk(directory: Path) -> Iterator[Path | None]:
    """Give the agent's state a small disk, to be filled; yield None where none can be mounted."""
    with ExitStack() as stack:
        disk = None
        with suppress(pytest.skip.Exception):
            disk = stack.enter_context(small_disk(directory / "state", _DISK_BYTES))
        yield disk


async def run(
    steps: Sequence[Step],
    directory: Path,
    models: dict[str, Path],
    disk: Path | None,
    progress: Callable[[str], None],
) -> History:
    """Set the stage, carry the steps out on it, and return what was seen; ``disk`` is as `own_disk` yields it."""
    history = History()
    async with AsyncExitStack() as stack:
        state = directory / "state"
        broker_home = directory / "broker"
        broker_home.mkdir()
        broker = stack.enter_context(Broker(broker_home, "max_queued_messages 0"))
        link = await stack.enter_async_context(Link(broker.port, history))
        folders = {station: str(folder) for station, folder in models.items()}
        box = Box(directory, link.port, Path(), **_settings(link.port, state, folders))
        unit = Unit(box, state / "spool.sqlite3", history)
        faults = Faults(unit, box, broker, link, disk, folders, history)
        clients = {}
        for name, version in CLIENTS.items():
            device = await stack.enter_async_context(Device(broker.port, name, version, keep=True))
            clients[name] = Client(device, name, history)
        stage = Stage(unit, faults, clients, history)
        async with asyncio.TaskGroup() as side:
            keeping = [side.create_task(unit.keep()), *(side.create_task(each.listen()) for each in clients.values())]
            await unit.pid()
            await box.logged("mqtt.connected")  # a request before that has no subscriber, and the broker drops it
            await Run(stage, progress).carry_out(steps)
            for task in keeping:
                task.cancel()
    history.log, history.unread = read_log(directory / "agent.log")
    return history


def _settings(port: int, state: Path, models: dict[str, str]) -> dict[str, Any]:
    return {
        "mqtt": {"port": port, "keepalive_s": 5},
        "state_dir": str(state),
        "models": models,
        "cameras": dict.fromkeys(CAMERAS, _CAMERA),
        "log": {"format": "json", "level": "debug"},
        "drain_s": 2,
    }


def _look(pid: int) -> Quiet:
    """Look at a process; its open files are counted by their names, and those without one by their kind."""
    process = Path("/proc") / str(pid)
    files: Counter[str] = Counter()
    for each in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed just now
            files[str(each.readlink()).partition(":[")[0]] += 1
    threads = sum(1 for _ in (process / "task").iterdir())
    return Quiet(pid, resident_bytes(pid), files, threads, len(children(pid)))


def at_rest(looks: Sequence[Quiet]) -> Quiet:
    """Leave out of several looks at a process what was there for a moment."""
    return Quiet(
        looks[-1].pid,
        median_low(look.resident for look in looks),
        reduce(and_, (look.files for look in looks)),
        min(look.threads for look in looks),
        min(look.workers for look in looks),
    )
