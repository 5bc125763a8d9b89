"""The other end of the contract: how a device asks. The command line, the demo and the bench ask through it.

It is an ordinary MQTT client with a clean session, and it keeps nothing: a device that must not lose an answer
uses a persistent session and a fixed name of its own.
"""

import asyncio
import json
import re
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.bus import security
from agent.contract.topics import Kind, Topics
from agent.errors import UsageError, UserError
from agent.settings import Mqtt

# A broker that takes longer to answer is of no use to somebody who waits.
_ANSWER_S = 10.0
_VERSIONS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_ADDRESS = re.compile(r"(?:\[([\w:.%]+)\]|([^\s\[\]:/@]+))(?::([0-9]{1,5}))?\Z")
_PORT = 1883
# Of a PUBLISH at QoS 1, beside its topic and payload, at the most: type, length, topic's length, packet identifier.
_HEADER_BYTES = 1 + 4 + 2 + 2 + 1


class ClientError(UserError):
    """The broker could not be reached, or let the client down."""


class _UnansweredError(ClientError):
    """The connection stood, and CONNECT was not answered as MQTT of that version is."""


def host_and_port(text: str) -> tuple[str, int]:
    """Read ``HOST[:PORT]``; an IPv6 address stands in brackets.

    Raises:
        UsageError: it is something else.

    """
    found = _ADDRESS.match(text)
    if found is None or not 0 < (port := int(found[3] or _PORT)) < 1 << 16:
        raise UsageError(f"{text} is not a broker's HOST or HOST:PORT: write it as in 192.168.1.10:1883")
    return found[1] or found[2], port


@dataclass(frozen=True, slots=True)
class Event:
    """What came back about a job: its kind, and the body as the contract describes it."""

    kind: Literal["state", "chunk", "final"]
    body: dict[str, Any]


_Events: TypeAlias = asyncio.Queue[Event | None]


class Client:
    """A device.

    Args:
        mqtt: the broker and the credentials.
        node: the box to ask.
        name: this device's ``{client}`` level; answers come to whoever asks under it.

    Attributes:
        version: the MQTT version that it speaks with the broker.

    """

    def __init__(self, mqtt: Mqtt, node: str, name: str) -> None:
        self.version = "5" if mqtt.protocol == "auto" else mqtt.protocol
        self._mqtt = mqtt
        self._where = f"{mqtt.host}:{mqtt.port}"
        self._topics = Topics(mqtt.root, node)
        self._name = name
        # What is told to the jobs that run; None: the connection is lost.
        self._jobs: dict[str, _Events] = {}
        # The same for frames whose jobs have no name yet, by their cameras.
        self._frames: dict[str, _Events] = {}
        self._status = ""
        self._online = asyncio.Event()
        # Requests by their packet identifier; the result is the broker's reason to refuse it, if it does.
        self._unacknowledged: dict[int, asyncio.Future[str | None]] = {}
        self._lost = False
        self._most_bytes: int | None = None
        self._client: paho.Client | None = None
        self._loop: asyncio.AbstractEventLoop
        self._ready: asyncio.Future[None]

    def __repr__(self) -> str:
        lost = ", lost" if self._lost else ""
        return f"<Client {self._name} at {self._where}{lost} jobs={len(self._jobs)}>"

    async def __aenter__(self) -> Self:
        """Connect and subscribe.

        Raises:
            ClientError: the broker is not there, or refuses.
            BusError: a file of the login or of TLS cannot be used.

        """
        self._loop = asyncio.get_running_loop()
        security.check(self._mqtt)
        if self._mqtt.protocol == "auto":
            try:
                await self._connect("5")
            except _UnansweredError:
                await self._connect("3.1.1")
        else:
            await self._connect(self._mqtt.protocol)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        assert client is not None, "enter the client first"  # noqa: S101
        await _close(client)

    def ask(self, request: Mapping[str, object], camera: str | None = None) -> AsyncIterator[Event]:
        """Publish a job and yield what comes back; the final is last.

        Args:
            request: the contract's fields; without an ``id`` it gets one.
            camera: whose image topic to ask on, where requests may have megabytes of pictures; None for the text topic.

        Raises:
            ClientError: the broker did not take it, or the connection was lost before its final.

        """
        body = {"id": secrets.token_hex(8), **request}
        payload = json.dumps(body, ensure_ascii=False).encode()
        kind = Kind.TEXT if camera is None else Kind.IMAGE
        return self._told(self._jobs, str(body["id"]), self._topics.request(self._name, kind, camera), payload)

    def show(self, camera: str, frame: bytes) -> AsyncIterator[Event]:
        """Publish a raw frame and yield what comes back, as `ask` does.

        It is the box that names the job, and until then nobody can tell two frames of one camera apart: show one at
        a time.
        """
        return self._told(self._frames, camera, self._topics.request(self._name, Kind.IMAGE, camera), frame)

    async def _told(self, table: dict[str, _Events], name: str, topic: str, payload: bytes) -> AsyncIterator[Event]:
        events = table[name] = asyncio.Queue()
        try:
            await self._publish(topic, payload)
            while True:
                event = await events.get()
                if event is None:
                    raise self._loss()
                yield event
                if event.kind == "final":
                    return
        finally:
            for each in (self._jobs, self._frames):
                for key in [key for key, queue in each.items() if queue is events]:
                    del each[key]

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
        if self._lost:
            raise self._loss()

    async def cancel(self, job_id: str) -> None:
        """Ask that a job of this client's be ended.

        Raises:
            ClientError: the broker did not take it.

        """
        await self._publish(self._topics.request(self._name, Kind.CANCEL), job_id.encode())

    async def _publish(self, topic: str, payload: bytes) -> None:
        assert self._client is not None, "enter the client first"  # noqa: S101
        if self._lost:
            raise self._loss()
        size = len(payload) + len(topic) + _HEADER_BYTES
        if self._most_bytes is not None and size > self._most_bytes:
            # It would end the connection, and nobody would be told why.
            raise ClientError(
                f"the request has {size:,} bytes and the broker at {self._where} takes at most {self._most_bytes:,}: "
                "send a smaller one, or raise the broker's largest packet"
            )
        sent = self._client.publish(topic, payload, qos=1)
        # paho's thread may have the acknowledgement already; the loop takes it in at the next await, not before.
        acknowledged = self._unacknowledged[sent.mid] = self._loop.create_future()
        try:
            async with asyncio.timeout(_ANSWER_S):
                refusal = await acknowledged
        except TimeoutError:
            raise ClientError("the broker did not acknowledge the request: is it still running?") from None
        finally:
            del self._unacknowledged[sent.mid]
        if refusal is not None:
            raise ClientError(f"the broker refuses requests on {topic} ({refusal}): see its log and its ACL")

    async def _connect(self, version: Literal["5", "3.1.1"]) -> None:
        self.version, self._lost, self._ready = version, False, self._loop.create_future()
        client = self._new_client(version)
        try:
            await asyncio.to_thread(client.connect, self._mqtt.host, self._mqtt.port, self._mqtt.keepalive_s)
        except (ssl.SSLError, ConnectionResetError) as error:
            raise ClientError(f"no TLS with {self._where} ({error.strerror}): check the port and mqtt.tls") from None
        except OSError as error:
            raise ClientError(
                f"no broker answers at {self._where} ({error.strerror or error}): "
                "start one, or name another with --config or --broker"
            ) from None
        client.loop_start()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._ready
        except BaseException as error:
            await _close(client)
            del client
            if isinstance(error, TimeoutError):
                raise self._no_mqtt("no answer to CONNECT") from None
            raise
        self._client = client

    def _new_client(self, version: str) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            protocol=_VERSIONS[version],
            clean_session=True if version == "3.1.1" else None,
            reconnect_on_failure=False,
        )
        if self._mqtt.username is not None:
            client.username_pw_set(self._mqtt.username, security.read_password(self._mqtt))
        if self._mqtt.tls is not None:
            client.tls_set_context(security.tls_context(self._mqtt.tls))
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_publish = self._on_subscribe, self._on_publish
        client.on_message = self._on_message
        client.on_socket_open = _send_at_once
        return client

    def _loss(self) -> ClientError:
        return ClientError(
            f"the connection to the broker at {self._where} was lost: try again; under the same id no job is run twice"
        )

    def _no_mqtt(self, reason: str) -> _UnansweredError:
        return _UnansweredError(
            f"what listens at {self._where} does not answer as an MQTT broker ({reason}): check the port, mqtt.protocol"
            " and whether it wants TLS"
        )

    def _refusal(self, reason: ReasonCode) -> ClientError:
        if reason == "Unsupported protocol version":
            return self._no_mqtt(str(reason))
        if reason in ("Not authorized", "Bad user name or password"):
            return ClientError(
                f"the broker at {self._where} refuses the login ({reason}): check mqtt.username and its password"
            )
        return ClientError(f"the broker at {self._where} refuses the connection ({reason}): see its log")

    # The callbacks run on paho's thread, and pass on to the loop's what they hear.

    def _on_connect(
        self, client: paho.Client, _d: object, _f: object, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._most_bytes = getattr(properties, "MaximumPacketSize", None)
        if reason.is_failure:
            self._loop.call_soon_threadsafe(self._settle, self._refusal(reason))
        else:
            client.subscribe([(f"{self._topics.results(self._name, '+')}/+", 1), (self._topics.status, 1)])

    def _on_subscribe(self, _c: object, _d: object, _m: int, reasons: list[ReasonCode], _p: Properties | None) -> None:
        refusal = None
        if any(reason.is_failure for reason in reasons):
            refusal = ClientError(f"the broker does not let {self._name} read its answers: see its log and its ACL")
        self._loop.call_soon_threadsafe(self._settle, refusal)

    def _on_disconnect(self, _c: object, _d: object, _f: object, reason: ReasonCode, _p: Properties | None) -> None:
        self._loop.call_soon_threadsafe(self._lose, str(reason))

    def _on_publish(self, _c: object, _d: object, mid: int, reason: ReasonCode, _p: Properties) -> None:
        self._loop.call_soon_threadsafe(self._published, mid, str(reason) if reason.is_failure else None)

    def _on_message(self, _c: object, _d: object, message: paho.MQTTMessage) -> None:
        self._loop.call_soon_threadsafe(self._take, message.topic, bytes(message.payload))

    def _settle(self, problem: ClientError | None) -> None:
        if self._ready.done():
            return
        if problem is None:
            self._ready.set_result(None)
        else:
            self._ready.set_exception(problem)

    def _lose(self, reason: str) -> None:
        """Take note that the connection is over, and wake everybody who waits for something to come over it."""
        self._settle(self._no_mqtt(f"the connection was closed: {reason}"))
        self._lost = True
        for events in (*self._jobs.values(), *self._frames.values()):
            events.put_nowait(None)
        for acknowledged in self._unacknowledged.values():
            if not acknowledged.done():
                acknowledged.set_exception(self._loss())
        self._online.set()

    def _published(self, mid: int, refusal: str | None) -> None:
        acknowledged = self._unacknowledged.get(mid)  # None for a request that nobody waits for any more
        if acknowledged is not None and not acknowledged.done():
            acknowledged.set_result(refusal)

    def _take(self, topic: str, payload: bytes) -> None:
        if topic == self._topics.status:
            self._status = payload.decode("ascii", "replace")
            if self._status == "online":
                self._online.set()
            return
        _, job_id, kind = topic.rsplit("/", 2)
        if kind not in ("state", "chunk", "final") or not (job_id in self._jobs or self._frames):
            return
        event = Event(kind, json.loads(payload))  # type: ignore[arg-type]
        # These two begin a job; what else comes of a camera is about frames of an earlier time.
        if job_id not in self._jobs and event.body.get("state") in ("accepted", "REJECTED"):
            camera = event.body.get("camera")
            if camera in self._frames:
                self._jobs[job_id] = self._frames.pop(camera)
        if job_id in self._jobs:
            self._jobs[job_id].put_nowait(event)


async def _close(client: paho.Client) -> None:
    """End a connection. paho closes the last of its sockets when it is collected: nobody should keep it after this."""
    client.disconnect()
    await asyncio.to_thread(client.loop_stop)


def _send_at_once(_c: object, _d: object, sock: Any) -> None:  # noqa: ANN401  paho names its type for type checkers alone
    """Turn Nagle's algorithm off: a request after an acknowledgement would wait 40 ms for the broker's."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
