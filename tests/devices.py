"""A device for tests: a bare paho client that keeps everything it hears, in MQTT 5 or 3.1.1."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

VERSIONS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


@dataclass(frozen=True)
class Heard:
    """One message that a device received."""

    topic: str
    payload: bytes
    retained: bool
    correlation: bytes | None
    properties: dict[str, str]

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.payload)
        return found


class Device:
    """A client of the box ``node``, subscribed to its own results.

    Args:
        port: of the broker on the loopback.
        name: its ``{client}`` level, and its MQTT client id.
        version: ``5`` or ``3.1.1``.
        also: further topic filters.
        keep: whether it has a persistent session, so that it misses nothing while it is away.

    """

    def __init__(
        self,
        port: int,
        name: str = "dev7",
        version: str = "5",
        node: str = "box1",
        also: tuple[str, ...] = (),
        keep: bool = False,
    ) -> None:
        self.heard: list[Heard] = []
        self._port = port
        self._base = f"slm/{node}"
        self._name = name
        self._filters = (f"{self._base}/res/{name}/#", *also)
        self._subscribed = asyncio.Event()
        self._news = asyncio.Condition()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        v5 = version == "5"
        clean = None if v5 else not keep
        self._client = paho.Client(CallbackAPIVersion.VERSION2, name, clean, protocol=VERSIONS[version])
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._connect: dict[str, Any] = {}
        if v5 and keep:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 3600
            self._connect = {"clean_start": False, "properties": properties}

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._client.connect, "127.0.0.1", self._port, **self._connect)
        self._client.loop_start()
        await self._subscribed.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)
        # paho closes the last of its sockets when it is collected, and in a cycle that comes too late.
        self._client.on_connect = self._client.on_subscribe = self._client.on_message = None
        await asyncio.gather(*self._tasks)

    def _on_connect(self, *_: Any) -> None:
        self._client.subscribe([(each, 1) for each in self._filters])

    def _on_subscribe(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._subscribed.set)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        properties = message.properties
        heard = Heard(
            message.topic,
            bytes(message.payload),
            message.retain,
            getattr(properties, "CorrelationData", None),
            dict(getattr(properties, "UserProperty", [])),
        )
        self._loop.call_soon_threadsafe(self._take, heard)

    def _take(self, heard: Heard) -> None:
        async def tell() -> None:
            async with self._news:
                self.heard.append(heard)
                self._news.notify_all()

        task = asyncio.create_task(tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def until(self, found: Callable[[], bool]) -> None:
        """Wait until ``found`` holds; it is asked after each message."""
        async with self._news:
            await self._news.wait_for(found)

    def publish(
        self, kind: str, payload: bytes | str | dict[str, Any], qos: int = 1, retain: bool = False, **properties: Any
    ) -> paho.MQTTMessageInfo:
        """Publish a request of ``kind``: ``text``, ``cancel`` or ``image/{camera}``."""
        data = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        sent = None
        if properties:
            sent = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, value in properties.items():
                setattr(sent, name, value)
        return self._client.publish(f"{self._base}/req/{self._name}/{kind}", data, qos, retain, sent)

    def of(self, job_id: str, kind: str) -> list[dict[str, Any]]:
        """Return the bodies of a job's events of one kind, in the order heard."""
        topic = f"{self._base}/res/{self._name}/{job_id}/{kind}"
        return [heard.body for heard in self.heard if heard.topic == topic]

    async def final(self, job_id: str, count: int = 1) -> dict[str, Any]:
        """Wait for a job's ``count``-th final."""
        await self.until(lambda: len(self.of(job_id, "final")) >= count)
        return self.of(job_id, "final")[count - 1]

    async def state(self, job_id: str, name: str) -> dict[str, Any]:
        """Wait for a state of a job."""
        await self.until(lambda: any(body["state"] == name for body in self.of(job_id, "state")))
        return next(body for body in self.of(job_id, "state") if body["state"] == name)

    async def caught_up(self) -> None:
        """Wait until the box has handled all that was published before.

        It handles messages in order: one that it refuses at once marks that the earlier ones are through.
        """
        self.publish("text", {"id": "marker", "prompt": 5})
        await self.final("marker")

    async def any_final(self) -> dict[str, Any]:
        """Wait for a final of whatever job, and return the first."""
        await self.until(lambda: any(heard.topic.endswith("/final") for heard in self.heard))
        return next(heard.body for heard in self.heard if heard.topic.endswith("/final"))

    def text(self, job_id: str) -> str:
        """Return the chunks heard of a job, joined."""
        return "".join(body["text"] for body in self.of(job_id, "chunk"))
