"""The network's thread, and the only module that knows paho."""

import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event, Thread
from typing import Literal, cast

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.bus.base import BusError, Subscription
from agent.bus.client import ForgivingClient
from agent.bus.events import Cause, Connack, ConnectFailed, End, Events, Refusal
from agent.bus.flow import Inflow
from agent.bus.security import read_password, tls_context
from agent.bus.versions import Version
from agent.contract.messages import Inbound, Outgoing
from agent.settings import Mqtt

# A week: longer than a weekend's power cut, shorter than a broker's memory for a box that was scrapped.
_SESSION_EXPIRY_S = 7 * 86_400
# Requests the broker may have under way to us. Each waits for one disk commit, and those can be grouped.
_RECEIVE_MAXIMUM = 100
# How often a thread that does not read looks after its keepalive and a socket that could not be written.
_PAUSED_TURN_S = 0.2

# Of a DISCONNECT, in MQTT 5's words.
_CAUSES: dict[str, Cause] = {"Session taken over": "taken_over", "Packet too large": "too_large"}
# Of a PUBACK: what time can heal. The others, such as an ACL's, stay until somebody changes something.
_PASSING = {"Unspecified error", "Implementation specific error", "Packet identifier in use", "Quota exceeded"}

_log = structlog.get_logger(__name__)


class Network:
    """One network connection's paho client, and the thread that drives it.

    The thread is ours rather than paho's ``loop_start``: its end is always noticed, whatever ends it, and it can
    stop reading while it still writes and pings, which a callback that waits could not.

    Args:
        settings: where and how to connect.
        version: the MQTT version to speak.
        client_id: names the session at the broker.
        will: what the broker publishes when this connection breaks.
        inflow: the session's bound on what is held.
        post: has a call run on the event loop.
        events: who is told.

    """

    def __init__(
        self,
        settings: Mqtt,
        version: Version,
        *,
        client_id: str,
        will: Outgoing,
        inflow: Inflow,
        post: Callable[[Callable[[], None]], None],
        events: Events,
    ) -> None:
        self._settings = settings
        self._version = version
        self._inflow = inflow
        self._post = post
        self._events = events
        self._stopping = False
        self._wake = Event()
        self._end = End("the connection was lost")
        client = self._new_client(client_id, will)
        self._client: Client | None = client  # until the thread's end; it then closes what it holds
        self._thread = Thread(target=self._serve, args=(client,), name=f"mqtt {client_id}", daemon=True)

    # On the event loop's thread.

    def start(self) -> None:
        """Connect, in the thread."""
        self._thread.start()

    def subscribe(self, subscriptions: Sequence[Subscription]) -> int | None:
        """Subscribe at QoS 1; return the packet identifier of SUBSCRIBE, None if it was not taken."""
        client = self._client
        if client is None:
            return None
        if self._version == "5":
            _, mid = client.subscribe([(each.filter, _options(each)) for each in subscriptions])
        else:
            _, mid = client.subscribe([(each.filter, 1) for each in subscriptions])
        return mid

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions; nobody waits for the broker's answer."""
        client = self._client
        if client is not None:
            client.unsubscribe(list(filters))

    def publish(self, out: Outgoing, qos: Literal[0, 1]) -> int | None:
        """Queue a message for the thread; return its packet identifier, None if it was not taken.

        Raises:
            BusError: the message is not a valid one.

        """
        if not out.topic or "\0" in out.topic:
            raise BusError("the topic is empty or holds a NUL: a broker closes the connection for that")
        client = self._client
        if client is None:
            return None
        try:
            info = client.publish(out.topic, out.payload, qos, out.retain, self._properties(out))
        except (ValueError, struct.error) as error:
            raise BusError(f"the message cannot be published: {error}") from error
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def ack(self, mid: int) -> None:
        """Queue a PUBACK for the thread."""
        client = self._client
        if client is not None:
            client.ack(mid, 1)

    def wake(self) -> None:
        """Have the thread look at the inflow again."""
        self._wake.set()

    def disconnect(self) -> None:
        """Queue a DISCONNECT for the thread; the connection ends after it."""
        client = self._client
        if client is not None:
            client.disconnect()

    def stop(self) -> None:
        """Close the socket, as a lost connection would; the thread ends. It may hang in a name look-up first."""
        self._stopping = True
        client = self._client
        sock = None if client is None else client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):  # wakes the thread, from its wait for the network too
                cast("socket.socket", sock).shutdown(socket.SHUT_RDWR)
        self._wake.set()

    def join(self) -> None:
        """Wait for the thread's end, after it was told: that was the last it did."""
        self._thread.join()

    def _properties(self, out: Outgoing) -> Properties | None:
        if self._version != "5" or (out.correlation is None and not out.properties):
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if out.correlation is not None:
            properties.CorrelationData = out.correlation
        if out.properties:
            properties.UserProperty = list(out.properties)
        return properties

    # On the network thread.

    def _serve(self, client: Client) -> None:
        try:
            self._connect(client)
        except (OSError, ValueError, BusError) as error:
            self._end = End(self._sentence(error))
        else:
            self._post(self._events.opened)
            try:
                self._exchange(client)
            except Exception as error:  # noqa: BLE001  a defect of paho costs a connection, not the session
                self._end = End(f"the MQTT client failed: {error!r}")
                _log.exception("mqtt.client_failed")
        finally:
            self._client = None
            sock = client.socket()
            if sock is not None:
                sock.close()
            self._post(partial(self._events.ended, self._end))

    def _connect(self, client: Client) -> None:
        settings = self._settings
        if settings.tls is not None:
            client.tls_set_context(tls_context(settings.tls))
        if settings.username is not None:
            client.username_pw_set(settings.username, read_password(settings))
        # paho pings after one of its keepalives and gives up after two: one and a half of ours.
        keepalive_s = max(1, settings.keepalive_s * 3 // 4)
        if self._version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = _SESSION_EXPIRY_S
            properties.ReceiveMaximum = _RECEIVE_MAXIMUM
            client.connect(settings.host, settings.port, keepalive_s, clean_start=False, properties=properties)
        else:
            client.connect(settings.host, settings.port, keepalive_s)
        # Else a chunk or a PUBACK waits for the TCP acknowledgement of the one before: 40 ms, measured.
        cast("socket.socket", client.socket()).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _exchange(self, client: Client) -> None:
        """Read and write until the connection ends; while too much is held here, only write and ping."""
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        while code == MQTTErrorCode.MQTT_ERR_SUCCESS and not self._stopping:
            if not self._inflow.over:
                code = client.loop()
            else:
                self._wake.wait(_PAUSED_TURN_S)
                self._wake.clear()
                code = client.loop_write() or client.loop_misc()

    def _new_client(self, client_id: str, will: Outgoing) -> Client:
        five = self._version == "5"
        client = ForgivingClient(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if five else False,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.max_inflight_messages_set(0)  # the window here is the bound; a second one would queue unseen
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_unreadable = self._on_unreadable
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        # Without this callback, and without its own thread, paho would write to the socket from the thread that
        # publishes, between two halves of a packet of ours.
        client.on_socket_register_write = self._on_socket_register_write
        return client

    def _on_connect(
        self, _client: Client, _data: object, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        answer: Connack | ConnectFailed
        if not code.is_failure:
            answer = Connack(
                session_present=flags.session_present,
                max_packet=getattr(properties, "MaximumPacketSize", None),
                receive_maximum=getattr(properties, "ReceiveMaximum", 65_535),
            )
        elif code == "Unsupported protocol version":
            answer = ConnectFailed(f"the broker does not speak MQTT {self._version}", "refused")
        elif code in ("Not authorized", "Bad user name or password"):
            answer = ConnectFailed(f"the broker refuses the login ({code}): check mqtt.username and its password")
        else:
            answer = ConnectFailed(f"the broker refuses the connection: {code}")
        self._post(partial(self._events.answered, answer))

    def _on_subscribe(
        self, _client: Client, _data: object, mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._post(partial(self._events.subscribed, mid, [code.is_failure for code in codes]))

    def _on_message(self, client: Client, _data: object, message: MQTTMessage) -> None:
        self._take(cast("ForgivingClient", client), message, readable=True)

    def _on_unreadable(self, client: ForgivingClient, message: MQTTMessage) -> None:
        self._take(client, message, readable=False)

    def _take(self, client: ForgivingClient, message: MQTTMessage, *, readable: bool) -> None:
        # The whole packet's size: properties alone may have hundreds of kilobytes.
        weight = self._inflow.add(client.packet_bytes)
        mid = message.mid if message.qos else 0
        self._post(partial(self._events.received, _inbound(message, readable=readable), mid, weight, message.retain))

    def _on_publish(self, _client: Client, _data: object, mid: int, code: ReasonCode, _properties: Properties) -> None:
        refusal = Refusal(str(code), str(code) in _PASSING) if code.is_failure else None
        self._post(partial(self._events.published, mid, refusal))

    def _on_disconnect(
        self, _client: Client, _data: object, flags: DisconnectFlags, code: ReasonCode, _properties: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._end = End(f"the broker disconnected us: {code}", _CAUSES.get(str(code), "lost"))
        elif code == "Keep alive timeout":
            self._end = End("the broker was silent for longer than the keepalive", "silent")

    def _on_socket_register_write(self, _client: Client, _data: object, _sock: object) -> None:
        self._wake.set()

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, BusError):
            return str(error)
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        return f"cannot reach {self._settings.host}:{self._settings.port}: {reason}"


def _options(subscription: Subscription) -> SubscribeOptions:
    wanted, unwanted = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE, SubscribeOptions.RETAIN_DO_NOT_SEND
    return SubscribeOptions(qos=1, retainHandling=wanted if subscription.retained else unwanted)


def _inbound(message: MQTTMessage, *, readable: bool) -> Inbound | None:
    """Free a message of the client library; None if its topic is not UTF-8."""
    try:
        topic = message.topic
    except UnicodeDecodeError:
        return None
    properties = message.properties
    return Inbound(
        topic=topic,
        payload=bytes(message.payload),
        correlation=getattr(properties, "CorrelationData", None),
        response_topic=getattr(properties, "ResponseTopic", None),
        expiry_s=getattr(properties, "MessageExpiryInterval", None),
        properties=dict(getattr(properties, "UserProperty", ())),
        readable=readable,
    )
