import asyncio
import threading
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from typing import Any, Literal, NoReturn

import pytest
import structlog

from agent.bus import Delivery, MqttBus, Subscription
from agent.contract.topics import Topics
from agent.settings import Mqtt
from tests.bus.scripted import ScriptedBroker, scripted_broker

Version = Literal["5", "3.1.1"]

TOPICS = Topics("slm", "box1")


class Log:
    """What is logged, as data."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> NoReturn:
        self._events.put_nowait(dict(event))
        raise structlog.DropEvent

    async def next(self) -> dict[str, Any]:
        """Wait for the next event."""
        return await self._events.get()

    async def event(self, name: str) -> dict[str, Any]:
        """Wait for the next event of that name."""
        while True:
            event = await self.next()
            if event["event"] == name:
                return event


class Session:
    """A bus that runs, and what it has told."""

    def __init__(
        self,
        settings: Mqtt,
        receive: Callable[[Delivery], None] | None = None,
        also: Sequence[Subscription] = (),
    ) -> None:
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self._onlines: asyncio.Queue[None] = asyncio.Queue()
        self.bus = MqttBus(
            settings,
            TOPICS,
            [*map(Subscription, TOPICS.requests), *also],
            receive=receive or self.deliveries.put_nowait,
            on_connected=lambda: self._onlines.put_nowait(None),
            random=lambda: 0.1,
        )
        self.running = asyncio.create_task(self.bus.run())

    async def online(self) -> None:
        """Wait until it is online, once more."""
        await self._onlines.get()

    def cut(self) -> None:
        """Break the connection, as pulling the cable would."""
        assert self.bus._connection is not None
        self.bus._connection._network.stop()

    async def stop(self) -> None:
        """Cancel it, if it is not at its end."""
        self.running.cancel()
        await asyncio.wait({self.running})


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Session]]:
    """Start buses; at the end they are cancelled, and have left no thread."""
    sessions: list[Session] = []

    def start(
        port: int,
        *,
        receive: Callable[[Delivery], None] | None = None,
        also: Sequence[Subscription] = (),
        **settings: Any,
    ) -> Session:
        sessions.append(Session(Mqtt(port=port, **settings), receive, also))
        return sessions[-1]

    yield start
    for session in sessions:
        await session.stop()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("mqtt")] == []


@pytest.fixture(params=["5", "3.1.1"])
def version(request: pytest.FixtureRequest) -> Version:
    """Each MQTT version in turn."""
    chosen: Version = request.param
    return chosen


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedBroker]:
    """Start a broker that does what the test says."""
    async with scripted_broker() as broker:
        yield broker


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    """Take what is logged."""
    log = Log()
    processors = structlog.get_config()["processors"]
    kept, processors[:] = processors.copy(), [log]  # in place: loggers that were used keep the list
    yield log
    processors[:] = kept
