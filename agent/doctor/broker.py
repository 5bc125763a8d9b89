"""The broker: whether it answers, lets this box in, and brings back what the box publishes."""

import queue
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from functools import partial
from typing import Literal, TypeAlias

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from agent.bus import security
from agent.doctor.addresses import look_up
from agent.doctor.finding import Finding
from agent.errors import UserError
from agent.settings import Settings
from agent.threads import begun

# Of a name look-up, a connection to an address, and each answer. A link that needs longer loses its keepalives as well.
_ANSWER_S = 2.0
# All of it takes no longer than so many of these: a name may have several addresses, and no firewall answers for any.
_ANSWERS = 3.25
_KEEPALIVE_S = 2
_VERSIONS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}

_Step: TypeAlias = Literal["connected", "subscribed", "came back", "closed"]


class _TroubleError(Exception):
    """What went wrong, in a sentence that says what to do."""


class _UnansweredError(_TroubleError):
    """The connection stood, and what listens there did not answer in this version of MQTT."""


def broker(settings: Settings, answer_s: float = _ANSWER_S) -> Iterator[Finding]:
    """Yield whether a message to a topic of the box's own comes back.

    To be let in and to be let subscribe is not enough: mosquitto answers SUBSCRIBE well whatever its ACL says, and
    then sends nothing.
    """
    mqtt = settings.mqtt
    where = f"{mqtt.host}:{mqtt.port}"
    topic = f"{mqtt.root}/{settings.device.id}/doctor/{secrets.token_hex(4)}"
    try:
        security.check(mqtt)
        said = _tried(settings, topic, answer_s)
    except UserError as error:
        yield Finding("broker", "wrong", str(error), stops=True)
    except _TroubleError as trouble:
        yield Finding("broker", "wrong", f"{where} {trouble}", stops=True)
    else:
        yield Finding("broker", "well", f"{where} answers MQTT {said}, and brings back what is published as this box")


def _tried(settings: Settings, topic: str, answer_s: float) -> str:
    until = time.monotonic() + _ANSWERS * answer_s
    if settings.mqtt.protocol != "auto":
        _Probe(settings, settings.mqtt.protocol, topic, answer_s, until).run()
        return settings.mqtt.protocol
    try:
        _Probe(settings, "5", topic, answer_s, until).run()
    except _UnansweredError:
        if time.monotonic() + answer_s > until:
            raise
        _Probe(settings, "3.1.1", topic, answer_s, until).run()
        return "3.1.1"
    return "5"


class _Probe:
    """One connection. paho's thread tells what happens; `run` follows it."""

    def __init__(
        self, settings: Settings, version: Literal["5", "3.1.1"], topic: str, answer_s: float, until: float
    ) -> None:
        self._mqtt = settings.mqtt
        self._version = version
        self._topic = topic
        self._answer_s = answer_s
        self._until = until
        self._heard: queue.SimpleQueue[tuple[_Step, ReasonCode | None]] = queue.SimpleQueue()

    def run(self) -> None:
        """Have a message go there and back.

        Raises:
            _TroubleError: it did not.

        """
        client = self._client()
        try:
            look_up(self._mqtt.host, self._answer_s)
            self._connect(client)
        except (ssl.SSLError, ConnectionResetError) as error:
            reason = getattr(error, "reason", None) or error.strerror
            raise _TroubleError(f"is not trusted, or speaks no TLS ({reason}): check mqtt.port and mqtt.tls") from None
        except socket.gaierror as error:
            raise _TroubleError(f"has no address ({error.strerror}): check mqtt.host and this box's DNS") from None
        except OSError as error:
            reason = error.strerror or "no answer"
            raise _TroubleError(f"cannot be reached ({reason}): check mqtt.host, mqtt.port and the network") from None
        client.loop_start()
        try:
            self._follow(client)
        finally:
            client.disconnect()
            client.loop_stop()

    def _connect(self, client: paho.Client) -> None:
        """Connect to one of the host's addresses, of which paho takes one after another, and leave time for an answer.

        Raises:
            OSError: none takes a connection.

        """
        # paho takes the keepalive for the longest silence in a TLS handshake.
        connecting = begun(partial(client.connect, self._mqtt.host, self._mqtt.port, keepalive=_KEEPALIVE_S))
        connecting.result(max(0.0, self._until - self._answer_s - time.monotonic()))

    def _client(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            # Under the box's own name it would end the session of the box that runs.
            client_id=f"edge-slm-doctor-{secrets.token_hex(4)}",
            protocol=_VERSIONS[self._version],
            clean_session=True if self._version == "3.1.1" else None,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._answer_s
        if self._mqtt.username is not None:
            client.username_pw_set(self._mqtt.username, security.read_password(self._mqtt))
        if self._mqtt.tls is not None:
            client.tls_set_context(security.tls_context(self._mqtt.tls))
        client.on_connect = lambda _c, _d, _f, reason, _p: self._heard.put(("connected", reason))
        client.on_subscribe = lambda _c, _d, _m, reasons, _p: self._heard.put(("subscribed", reasons[0]))
        client.on_message = lambda _c, _d, _m: self._heard.put(("came back", None))
        client.on_disconnect = lambda _c, _d, _f, reason, _p: self._heard.put(("closed", reason))
        return client

    def _follow(self, client: paho.Client) -> None:
        reason = self._wait("connected")
        if reason == "Unsupported protocol version":
            raise _UnansweredError(f"does not speak MQTT {self._version}: set mqtt.protocol to auto")
        if reason is not None and reason.is_failure:
            raise _TroubleError(f"refuses the login ({reason}): check mqtt.username and its password")
        client.subscribe(self._topic, 1)
        reason = self._wait("subscribed")
        if reason is not None and reason.is_failure:
            raise _TroubleError(f"refuses the subscription ({reason}): {self._allow}")
        client.publish(self._topic, b"", 1)
        self._wait("came back")

    @property
    def _allow(self) -> str:
        return f"allow this login to read and write {self._topic.rpartition('/doctor/')[0]}/# in the broker's ACL"

    def _wait(self, step: _Step) -> ReasonCode | None:
        """Return the reason that came with a step.

        Raises:
            _TroubleError: something else happened, or nothing.

        """
        try:
            left = max(0.0, self._until - time.monotonic())
            heard, reason = self._heard.get(timeout=min(self._answer_s, left))
        except queue.Empty:
            heard, reason = None, None
        if heard == step:
            return reason
        if step == "connected":
            what = "gives no answer to CONNECT" if heard is None else f"closes the connection upon CONNECT ({reason})"
            raise _UnansweredError(f"{what}: check that a broker is at mqtt.port, and whether it wants TLS")
        if step == "came back":
            what = (
                "does not bring back what this box publishes" if heard is None else "closes the connection upon PUBLISH"
            )
            raise _TroubleError(f"{what}: {self._allow}")
        raise _TroubleError("gives no answer to SUBSCRIBE: see its log")
