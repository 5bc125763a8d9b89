"""What systemd is told of this process; nothing where it was not systemd that started it.

Sources: sd_notify(3), sd_watchdog_enabled(3). The protocol is a line of text to a socket: a library would be larger.
"""

import os
import socket
import time
from collections.abc import Mapping

import structlog

_log = structlog.get_logger(__name__)


class Systemd:
    """Tells systemd how the service is.

    Args:
        environ: as systemd has set it for this process.

    Attributes:
        watchdog_s: how long systemd waits for a sign of life, in seconds; None if it does not.

    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # the abstract namespace, as Linux names it
            self._address = "\0" + self._address[1:]
        usec = environ.get("WATCHDOG_USEC", "")
        meant = self._address and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(usec) / 1e6 if meant and usec.isdecimal() and int(usec) else None

    def __repr__(self) -> str:
        return f"<Systemd {self._address!r} watchdog_s={self.watchdog_s}>"

    def ready(self) -> bool:
        """Say that the start, or a reload, is complete; False if it could not be said now, and has to be again."""
        return self._tell("READY=1")

    def reloading(self) -> None:
        """Say that the configuration is changed; `ready` says when that is done."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the service ends."""
        self._tell("STOPPING=1")

    def status(self, sentence: str) -> None:
        """Say how the service is, for ``systemctl status``."""
        self._tell("STATUS=" + " ".join(sentence.split()))

    def extend(self, seconds: float) -> None:
        """Ask for so much more time, from now, to start, reload or stop."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def alive(self) -> None:
        """Keep the watchdog quiet."""
        self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> bool:
        if not self._address:
            return True
        try:
            # Not blocking: a manager that does not read must not hold the event loop.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
                out.sendto(state.encode(), self._address)
        except OSError as error:
            _log.warning("systemd.not_told", state=state.partition("=")[0], error=str(error))
            return False
        return True
