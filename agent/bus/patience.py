"""How long to wait before the next connection, and what to say meanwhile."""

from collections.abc import Callable

from agent.backoff import Backoff
from agent.bus.events import End

# A broker that restarts is back within a second; one that is down for a day should not be asked 100,000 times.
_FIRST_S, _MOST_S = 0.5, 60.0
# Only a connection that lasted shows that the trouble is over. Two boxes of one name, each of which the broker
# drops for the other, would never back off otherwise.
_LASTED_S = 10.0
# After another client took our place. Whoever comes back throws the other out: two boxes of one name should do that
# a few times an hour at most. At once is never right, and a client that took it by mistake is gone in half a minute.
_RIVAL_LEAST_S, _RIVAL_FIRST_S, _RIVAL_MOST_S = 30.0, 60.0, 1800.0
# Longer than a rival that waits like us leaves us in place.
_RIVAL_GONE_S = 2 * (_RIVAL_LEAST_S + _RIVAL_MOST_S)
# So many short connections in a row are no restart of the broker.
_SHORT_IN_A_ROW = 3


class Patience:
    """Decides how long to wait after each connection that failed or ended.

    Args:
        client_id: of the session, for the sentences.
        random: for the jitter, as `random.random`.

    """

    def __init__(self, client_id: str, random: Callable[[], float]) -> None:
        self._client_id = client_id
        self._usual = Backoff(_FIRST_S, _MOST_S, random)
        self._rival = Backoff(_RIVAL_FIRST_S, _RIVAL_MOST_S, random)
        self._short = 0

    def __repr__(self) -> str:
        return f"<Patience {self._usual!r}, {self._short} short in a row>"

    def after_failure(self) -> float:
        """Return how long to wait after a connection that did not come about, in seconds."""
        return self._usual.next()

    def after(self, end: End, lasted_s: float) -> tuple[float, str]:
        """Return how long to wait after a connection that was online for ``lasted_s`` seconds, and why it ended."""
        self._short += 1
        if lasted_s > _LASTED_S:
            self._usual.reset()
            self._short = 0
        if lasted_s > _RIVAL_GONE_S:
            self._rival.reset()
        if end.cause == "taken_over":
            return _RIVAL_LEAST_S + self._rival.next(), (
                f"another client has connected as {self._client_id}, so the broker dropped this one: "
                "if two boxes have the same device.id, give one of them another"
            )
        reason = end.reason
        if end.cause == "lost" and self._short >= _SHORT_IN_A_ROW:
            reason += (
                f", {self._short} times in a row within seconds: look in the broker's log whether another client"
                f" connects as {self._client_id}, or a packet is larger than it takes"
            )
        return self._usual.next(), reason

    def learnt(self) -> None:
        """Take note that the last end has a reason, and the next connection will do better."""
        self._usual.reset()
