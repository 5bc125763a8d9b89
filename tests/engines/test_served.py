"""The local engines that run."""

from typing import Any

from agent.engines.served import Engines
from agent.testing import FakeEngine


class Engine(FakeEngine):
    """An engine whose process may not end."""

    stuck = False


async def test_an_engine_that_has_ended_but_for_its_process_is_still_looked_after() -> None:
    engine: Any = Engine()
    async with Engines() as engines:
        await engines.only({"text": engine})
        engine.stuck = True
        await engines.only({})
        assert ([*engines], engine in engines) == ([engine], False)
        engine.stuck = False
        await engines.only({})
        assert [*engines] == []
