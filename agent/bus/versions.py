"""Which MQTT version to speak next."""

from typing import Literal, TypeAlias

Version: TypeAlias = Literal["5", "3.1.1"]

# A broker that restarts, a proxy before one that is away and a link that is cut look alike: the connection closes, or
# nothing is said. So many in a row may be an old broker's answer to MQTT 5.
_SUSPICIONS = 3


class VersionChoice:
    """Tries MQTT 5 first, and 3.1.1 where the broker says that it does not speak 5, or seems not to.

    What a broker says is believed. What it seems to say is not, until it has answered 3.1.1 and, asked again at once,
    not 5; and then for one connection. A client that uses MQTT 5 loses its correlation data on 3.1.1, and so the id of
    its job, without a word; that may not happen because a broker was away for a second.

    Args:
        configured: ``auto``, or the one version to speak.

    """

    def __init__(self, configured: Literal["auto", "5", "3.1.1"]) -> None:
        self._auto = configured == "auto"
        self.version: Version = "5" if configured == "auto" else configured
        self._patience = _SUSPICIONS
        # Whether 3.1.1 was answered since 5 was last tried, and whether that 5 is not spoken is more than a suspicion.
        self._alive = False
        self._sure = False

    def __repr__(self) -> str:
        return f"<VersionChoice {self.version}{'' if self._auto else ' pinned'}>"

    def accepted(self) -> bool:
        """Take note of a CONNACK that accepts; return whether to stay, or to try 5 once more, now that it answers."""
        if self.version == "5" or not self._auto or self._sure:
            return True
        self._alive = True
        self._try_5_once()
        return False

    def ended(self) -> None:
        """Take note of the end of a connection that was stayed with."""
        if self.version == "5":
            self._patience = _SUSPICIONS
        elif self._auto and self._alive:
            self._alive = self._sure = False
            self._try_5_once()

    def refused(self) -> None:
        """Take note of a broker that says it does not speak this version."""
        self._sure, self._alive = self.version == "5", False
        self._turn()

    def suspected(self) -> None:
        """Take note of a connection closed, or silent, after our CONNECT, as old brokers answer a new version."""
        self._patience -= 1
        if self._patience <= 0:
            self._sure = self.version == "5" and self._alive
            self._turn()

    def _try_5_once(self) -> None:
        self.version, self._patience = "5", 1

    def _turn(self) -> None:
        if self._auto:
            self.version = "3.1.1" if self.version == "5" else "5"
            self._patience = _SUSPICIONS if self.version == "5" else 1
