"""Which MQTT version to speak next."""

from typing import Literal, TypeAlias

Version: TypeAlias = Literal["5", "3.1.1"]

# A broker that restarts or is overloaded closes or keeps silent, too. One that has spoken a version before is
# believed to speak it still, until that many tries in a row say otherwise.
_TRUST = 3


class VersionChoice:
    """Tries MQTT 5 first and 3.1.1 next, in turns until one works, then stays with that.

    Args:
        configured: ``auto``, or the one version to speak.

    """

    def __init__(self, configured: Literal["auto", "5", "3.1.1"]) -> None:
        self._pinned = configured != "auto"
        self.version: Version = "5" if configured == "auto" else configured
        self._credit = 0

    def __repr__(self) -> str:
        return f"<VersionChoice {self.version}{' pinned' if self._pinned else ''}>"

    def worked(self) -> None:
        """Take note of a CONNACK that accepts."""
        self._credit = _TRUST

    def refused(self) -> None:
        """Take note of a broker that says it does not speak this version."""
        self._credit = 0
        self._turn()

    def suspected(self) -> None:
        """Take note of a connection closed, or silent, after our CONNECT, as old brokers answer a new version."""
        self._credit -= 1
        if self._credit <= 0:
            self._turn()

    def _turn(self) -> None:
        if not self._pinned:
            self.version = "3.1.1" if self.version == "5" else "5"
