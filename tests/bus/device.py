"""A device on the other side of a real broker: plain paho, nothing of ours."""

import asyncio
from types import TracebackType
from typing import Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Device:
    """Publishes requests, and keeps what arrives in ``messages``."""

    def __init__(self, port: int) -> None:
        self.messages: asyncio.Queue[MQTTMessage] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._subscribed = asyncio.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client.on_subscribe = self._client.on_message = None

    async def subscribe(self, topic: str) -> None:
        """Subscribe, and wait until it counts."""
        self._subscribed.clear()
        self._client.subscribe(topic, 1)
        await self._subscribed.wait()

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, **properties: object
    ) -> None:
        """Publish, and wait until it is out."""
        extra = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        for name, value in properties.items():
            setattr(extra, name, value)
        info = self._client.publish(topic, payload, qos, retain, extra)
        await asyncio.to_thread(info.wait_for_publish, 10)

    async def payload(self) -> bytes:
        """Wait for the next message, and return what it says."""
        return bytes((await self.messages.get()).payload)

    def _on_subscribe(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._subscribed.set)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._loop.call_soon_threadsafe(self.messages.put_nowait, message)
