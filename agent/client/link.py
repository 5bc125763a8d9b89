"""A connection with the broker for those who come and go: with a clean session, and over when it is lost."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.bus import security
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


class Link:
    """The connection; enter it to have it.

    Args:
        mqtt: the broker and the credentials.
        who: whose it is, for sentences.
        filters: what it subscribes to.
        take: called on the event loop for each message, with its topic and payload.
        lost: called there when the connection is over.
        qos: of the subscriptions, 0 or 1.

    Attributes:
        version: the MQTT version that it speaks with the broker.
        lost: whether it is over.

    """

    def __init__(
        self,
        mqtt: Mqtt,
        who: str,
        filters: Sequence[str],
        *,
        take: Callable[[str, bytes], None],
        lost: Callable[[], None] = lambda: None,
        qos: int = 1,
    ) -> None:
        self.version = "5" if mqtt.protocol == "auto" else mqtt.protocol
        self._mqtt = mqtt
        self._where = f"{mqtt.host}:{mqtt.port}"
        self._who = who
        self._filters, self._qos = filters, qos
        self._take = take
        self._tell_lost = lost
        # What was published, by packet identifier; the result is the broker's reason to refuse it, if it does.
        self._unacknowledged: dict[int, asyncio.Future[str | None]] = {}
        self.lost = False
        self._most_bytes: int | None = None
        self._client: paho.Client | None = None
        self._loop: asyncio.AbstractEventLoop
        self._ready: asyncio.Future[None]

    def __repr__(self) -> str:
        return f"<Link {self._who} at {self._where}{', lost' * self.lost}>"

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
        assert client is not None, "enter the link first"  # noqa: S101
        await _close(client)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish at QoS 1, and return when the broker has it.

        Raises:
            ClientError: the broker did not take it, or the connection was lost.

        """
        assert self._client is not None, "enter the link first"  # noqa: S101
        if self.lost:
            raise self.loss()
        size = len(payload) + len(topic) + _HEADER_BYTES
        if self._most_bytes is not None and size > self._most_bytes:
            # It would end the connection, and nobody would be told why.
            raise ClientError(
                f"the message has {size:,} bytes and the broker at {self._where} takes at most {self._most_bytes:,}: "
                "send a smaller one, or raise the broker's largest packet"
            )
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        # paho's thread may have the acknowledgement already; the loop takes it in at the next await, not before.
        acknowledged = self._unacknowledged[sent.mid] = self._loop.create_future()
        try:
            async with asyncio.timeout(_ANSWER_S):
                refusal = await acknowledged
        except TimeoutError:
            raise ClientError("the broker did not acknowledge the message: is it still running?") from None
        finally:
            del self._unacknowledged[sent.mid]
        if refusal is not None:
            raise ClientError(f"the broker refuses messages on {topic} ({refusal}): see its log and its ACL")

    async def _connect(self, version: Literal["5", "3.1.1"]) -> None:
        self.version, self.lost, self._ready = version, False, self._loop.create_future()
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

    def loss(self) -> ClientError:
        """Return what there is to say when it is lost."""
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
            client.subscribe([(each, self._qos) for each in self._filters])

    def _on_subscribe(self, _c: object, _d: object, _m: int, reasons: list[ReasonCode], _p: Properties | None) -> None:
        refusal = None
        if any(reason.is_failure for reason in reasons):
            refusal = ClientError(f"the broker does not let {self._who} read its answers: see its log and its ACL")
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
        self.lost = True
        for acknowledged in self._unacknowledged.values():
            if not acknowledged.done():
                acknowledged.set_exception(self.loss())
        self._tell_lost()

    def _published(self, mid: int, refusal: str | None) -> None:
        acknowledged = self._unacknowledged.get(mid)  # None for a request that nobody waits for any more
        if acknowledged is not None and not acknowledged.done():
            acknowledged.set_result(refusal)


async def _close(client: paho.Client) -> None:
    """End a connection. paho closes the last of its sockets when it is collected: nobody should keep it after this."""
    client.disconnect()
    await asyncio.to_thread(client.loop_stop)


def _send_at_once(_c: object, _d: object, sock: Any) -> None:  # noqa: ANN401  paho names its type for type checkers alone
    """Turn Nagle's algorithm off: a request after an acknowledgement would wait 40 ms for the broker's."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
