"""Which MQTT version to speak next."""

from typing import Literal, TypeAlias

Version: TypeAlias = Literal["5", "3.1.1"]

# A broker that restarts, a link that is cut and a box that is overloaded look alike: the connection closes, or nothing
# is said. So many in a row are an old broker's answer to MQTT 5.
_SUSPICIONS = 3


class VersionChoice:
    """Tries MQTT 5 first, and 3.1.1 where the broker says that it does not speak 5, or seems not to.

    What a broker says is believed while it works. What it seems to say is believed for one connection: the next one
    tries 5 again. A client that uses MQTT 5 loses its correlation data on 3.1.1, and so the id of its job, without a
    word; that may not stay so because a link was cut once.

    Args:
        configured: ``auto``, or the one version to speak.

    """

    def __init__(self, configured: Literal["auto", "5", "3.1.1"]) -> None:
        self._auto = configured == "auto"
        self.version: Version = "5" if configured == "auto" else configured
        self._patience = _SUSPICIONS
        self._said = False

    def __repr__(self) -> str:
        return f"<VersionChoice {self.version}{'' if self._auto else ' pinned'}>"

    def ended(self) -> None:
        """Take note of the end of a connection that the broker had accepted."""
        if self.version == "5":
            self._patience = _SUSPICIONS
        elif self._auto and not self._said:
            self.version, self._patience = "5", 1

    def refused(self) -> None:
        """Take note of a broker that says it does not speak this version."""
        self._said = self.version == "5"
        self._turn()

    def suspected(self) -> None:
        """Take note of a connection closed, or silent, after our CONNECT, as old brokers answer a new version."""
        self._patience -= 1
        if self._patience <= 0:
            self._said = False
            self._turn()

    def _turn(self) -> None:
        if self._auto:
            self.version = "3.1.1" if self.version == "5" else "5"
            self._patience = _SUSPICIONS if self.version == "5" else 1
