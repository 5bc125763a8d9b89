"""The local engines that run, which may outlive the service that has them."""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from types import TracebackType
from typing import Never, Self

from agent.engines.local import LocalEngine
from agent.placement import Station


class Engines(Collection[LocalEngine]):
    """A context in which engines are served; at its end, they end.

    Those that were served, and whose process cannot be ended, are among them for whoever looks through them.
    """

    def __init__(self) -> None:
        self._side = asyncio.TaskGroup()
        self._tasks: dict[LocalEngine, asyncio.Task[None]] = {}
        self._stuck: list[LocalEngine] = []  # which have ended, but for the process
        self._changed = asyncio.Event()

    def __contains__(self, engine: object) -> bool:
        return engine in self._tasks

    def __iter__(self) -> Iterator[LocalEngine]:
        return iter({**self._tasks, **dict.fromkeys(self._stuck)})

    def __len__(self) -> int:
        return len({*self._tasks, *self._stuck})

    async def __aenter__(self) -> Self:
        await self._side.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks.values():
            task.cancel()
        await self._side.__aexit__(kind, error, trace)

    async def only(self, engines: Mapping[Station, LocalEngine]) -> None:
        """Serve these and no others, which end first: there may be memory for some of them alone."""
        ending = {engine: task for engine, task in self._tasks.items() if engine not in engines.values()}
        for engine, task in ending.items():
            del self._tasks[engine]
            task.cancel()
        if ending:
            await asyncio.wait(ending.values())
        self._stuck = [engine for engine in (*self._stuck, *ending) if engine.stuck]
        for station, engine in engines.items():
            if engine not in self:
                self._tasks[engine] = self._side.create_task(self._serve(engine), name=f"engine.{station}")

    async def loaded(self, engines: Collection[LocalEngine]) -> LocalEngine | None:
        """Wait until these are ready; return the one that fails, if one does.

        Nothing bounds the time here: an engine's own watchdog ends a load that hangs.
        """
        while any(engine.health.state != "ready" for engine in engines):
            self._changed.clear()
            failed = next((engine for engine in engines if engine.health.state == "failed"), None)
            if failed is not None:
                return failed
            await self._changed.wait()
        return None

    async def _serve(self, engine: LocalEngine) -> None:
        async with asyncio.TaskGroup() as side:
            side.create_task(self._follow(engine), name="health")
            await engine.serve()

    async def _follow(self, engine: LocalEngine) -> Never:
        while True:
            self._changed.set()
            await engine.changed()
