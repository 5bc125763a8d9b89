"""The other end of the contract: how a device asks. The command line, the demo and the bench ask through it.

It is an ordinary MQTT client with a clean session, and it keeps nothing: a device that must not lose an answer
uses a persistent session and a fixed name of its own.
"""

import asyncio
import json
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.contract.topics import Kind, Topics
from agent.settings import Mqtt

# A broker that takes longer to answer is of no use to somebody who waits.
_ANSWER_S = 10.0


class ClientError(Exception):
    """The broker could not be reached, or let the client down; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Event:
    """What came back about a job: its kind, and the body as the contract describes it."""

    kind: Literal["state", "chunk", "final"]
    body: dict[str, Any]


class Client:
    """A device.

    Args:
        mqtt: the broker and the credentials.
        node: the box to ask.
        name: this device's ``{client}`` level; answers come to whoever asks under it.

    """

    def __init__(self, mqtt: Mqtt, node: str, name: str) -> None:
        self._mqtt = mqtt
        self._topics = Topics(mqtt.root, node)
        self._name = name
        self._jobs: dict[str, asyncio.Queue[Event | None]] = {}
        self._status = ""
        self._online = asyncio.Event()
        self._acknowledged: dict[int, asyncio.Future[None]] = {}
        self._client: paho.Client | None = None
        self._loop: asyncio.AbstractEventLoop
        self._ready: asyncio.Future[None]

    def __repr__(self) -> str:
        return f"<Client {self._name} at {self._mqtt.host}:{self._mqtt.port} jobs={len(self._jobs)}>"

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        versions = {"5": (MQTTProtocolVersion.MQTTv5,), "3.1.1": (MQTTProtocolVersion.MQTTv311,)}.get(
            self._mqtt.protocol, (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311)
        )
        for version in versions:
            try:
                self._client = await self._connect(version)
            except (ClientError, OSError) as error:
                failed = error
            else:
                return self
        where = f"{self._mqtt.host}:{self._mqtt.port}"
        raise ClientError(
            f"no broker answers at {where} ({failed}): start one, or name another with --config or --broker"
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.disconnect()
            await asyncio.to_thread(self._client.loop_stop)

    async def ask(self, request: Mapping[str, object]) -> AsyncIterator[Event]:
        """Publish a text job and yield what comes back; the final is last.

        Args:
            request: the contract's fields; without an ``id`` it gets one.

        """
        body = {"id": secrets.token_hex(8), **request}
        job_id = str(body["id"])
        events = self._jobs[job_id] = asyncio.Queue()
        try:
            await self._publish(Kind.TEXT, json.dumps(body, ensure_ascii=False).encode())
            while True:
                event = await events.get()
                if event is None:
                    raise ClientError("the connection to the broker was lost: ask again under the same id, to be sure")
                yield event
                if event.kind == "final":
                    return
        finally:
            del self._jobs[job_id]

    async def online(self, seconds: float) -> None:
        """Wait for the box to say that it is online.

        Args:
            seconds: how long.

        Raises:
            ClientError: it did not.

        """
        try:
            async with asyncio.timeout(seconds):
                await self._online.wait()
        except TimeoutError:
            said = f"is {self._status}" if self._status else "has never been seen at this broker"
            raise ClientError(f"the box {self._topics.node} {said}: start it, or name another with --node") from None

    async def cancel(self, job_id: str) -> None:
        """Ask that a job of this client's be ended."""
        await self._publish(Kind.CANCEL, job_id.encode())

    async def _publish(self, kind: Kind, payload: bytes) -> None:
        assert self._client is not None, "enter the client first"  # noqa: S101
        sent = self._client.publish(self._topics.request(self._name, kind), payload, qos=1)
        acknowledged = self._acknowledged.setdefault(sent.mid, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(_ANSWER_S):
                await acknowledged
        except TimeoutError:
            raise ClientError("the broker did not acknowledge the request: is it still running?") from None
        finally:
            self._acknowledged.pop(sent.mid, None)

    async def _connect(self, version: MQTTProtocolVersion) -> paho.Client:
        self._ready = asyncio.get_running_loop().create_future()
        clean = True if version is MQTTProtocolVersion.MQTTv311 else None
        client = paho.Client(
            CallbackAPIVersion.VERSION2, protocol=version, clean_session=clean, reconnect_on_failure=False
        )
        _secure(client, self._mqtt)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_publish = self._on_subscribe, self._on_publish
        client.on_message = self._on_message
        client.on_socket_open = _send_at_once
        await asyncio.to_thread(client.connect, self._mqtt.host, self._mqtt.port, self._mqtt.keepalive_s)
        client.loop_start()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._ready
        except (ClientError, TimeoutError) as error:
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)
            raise ClientError(str(error) or "no answer to CONNECT") from None
        return client

    # The callbacks run on paho's thread, and pass on to the loop's what they hear.

    def _on_connect(
        self, client: paho.Client, _d: object, _f: object, reason: ReasonCode, _p: Properties | None
    ) -> None:
        if reason.is_failure:
            self._loop.call_soon_threadsafe(self._settle, str(reason))
        else:
            client.subscribe([(f"{self._topics.results(self._name, '+')}/+", 1), (self._topics.status, 1)])

    def _on_subscribe(self, _c: object, _d: object, _m: int, reasons: list[ReasonCode], _p: Properties | None) -> None:
        refused = any(reason.is_failure for reason in reasons)
        self._loop.call_soon_threadsafe(self._settle, "the broker refused the subscription" if refused else None)

    def _on_disconnect(self, _c: object, _d: object, _f: object, reason: ReasonCode, _p: Properties | None) -> None:
        self._loop.call_soon_threadsafe(self._lost, f"the connection was closed: {reason}")

    def _on_publish(self, _c: object, _d: object, mid: int, _r: ReasonCode, _p: Properties) -> None:
        self._loop.call_soon_threadsafe(self._published, mid)

    def _on_message(self, _c: object, _d: object, message: paho.MQTTMessage) -> None:
        self._loop.call_soon_threadsafe(self._take, message.topic, bytes(message.payload))

    def _lost(self, reason: str) -> None:
        self._settle(reason)
        for events in self._jobs.values():
            events.put_nowait(None)

    def _settle(self, problem: str | None) -> None:
        if self._ready.done():
            return
        if problem is None:
            self._ready.set_result(None)
        else:
            self._ready.set_exception(ClientError(problem))

    def _published(self, mid: int) -> None:
        # The broker's word can come before `publish` has returned and told the number.
        future = self._acknowledged.setdefault(mid, asyncio.get_running_loop().create_future())
        if not future.done():
            future.set_result(None)

    def _take(self, topic: str, payload: bytes) -> None:
        if topic == self._topics.status:
            self._status = payload.decode("ascii", "replace")
            if self._status == "online":
                self._online.set()
            return
        _, job_id, kind = topic.rsplit("/", 2)
        if job_id in self._jobs and kind in ("state", "chunk", "final"):
            self._jobs[job_id].put_nowait(Event(kind, json.loads(payload)))  # type: ignore[arg-type]


def _send_at_once(_c: object, _d: object, sock: Any) -> None:  # noqa: ANN401  paho names its type for type checkers alone
    """Turn Nagle's algorithm off: a request after an acknowledgement would wait 40 ms for the broker's."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _secure(client: paho.Client, mqtt: Mqtt) -> None:
    """Give a paho client the credentials and the TLS of the settings."""
    password = mqtt.password.get_secret_value() if mqtt.password else None
    if mqtt.password_file is not None:
        password = mqtt.password_file.read_text(encoding="utf-8").partition("\n")[0]
    if mqtt.username is not None:
        client.username_pw_set(mqtt.username, password)
    if mqtt.tls is not None:
        context = ssl.create_default_context(cafile=mqtt.tls.ca_file)
        if mqtt.tls.cert_file is not None:
            context.load_cert_chain(mqtt.tls.cert_file, mqtt.tls.key_file)
        client.tls_set_context(context)
