"""Login and TLS, read from their files anew for each connection, so that both can be rotated under a running agent."""

import ssl
from pathlib import Path

from agent.bus.base import BusError
from agent.credentials import secret
from agent.errors import UserError
from agent.settings import Mqtt, Tls


def check(settings: Mqtt) -> None:
    """Read everything once, so that a mistake shows at start.

    Raises:
        BusError: a file is missing or unreadable, or the settings contradict each other.

    """
    if read_password(settings) is not None and settings.username is None:
        raise BusError("mqtt.password without mqtt.username: set the username too, MQTT 3.1.1 knows no password alone")
    if settings.tls is not None:
        tls_context(settings.tls)


def read_password(settings: Mqtt) -> str | None:
    """Return the password, from its file if there is one.

    Raises:
        BusError: the file cannot be read.

    """
    try:
        return secret("mqtt.password_file", settings.password, settings.password_file)
    except UserError as error:
        raise BusError(str(error)) from None


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return the TLS context that the settings ask for; certificates and host names are always verified.

    Raises:
        BusError: a file cannot be read, or is not what it should be.

    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:
        raise _unreadable("mqtt.tls.ca_file", tls.ca_file, error) from None
    context.sslsocket_class = _TidySocket
    if tls.cert_file is not None:
        try:
            # Without a password, OpenSSL would ask for an encrypted key's on the terminal, and wait.
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
        except OSError as error:
            raise _unreadable("mqtt.tls.cert_file and key_file", tls.cert_file, error) from None
    return context


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho would leave it to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _unreadable(key: str, path: Path | None, error: OSError) -> BusError:
    return BusError(f"{key}: cannot use {path}: {error.strerror or error}")
