"""The largest packet that a broker takes: what it says, or how it ends connections."""

# Connections in a row that ended while the same delivery was the oldest without an answer. One or two are any
# broker's restart. On the last of them it is sent alone, so that it is clear which one did it.
_ENDS = 3
# A final without its text has some 600 bytes, and the box's own `info` 800: a broker that takes less is of no use.
_LEAST = 1024
# Who raises a broker's limit restarts the broker and not the box. To find out again costs `_ENDS` short connections.
_BELIEVED_S = 3600.0


class PacketLimit:
    """What the broker announced, and what was learnt from a broker that announces nothing.

    MQTT 3.1.1 has no such announcement, and mosquitto's ``message_size_limit`` is not in that of MQTT 5: such a
    broker closes the connection upon a packet that is too large, and would again, upon every next one. So a delivery
    that ends connection after connection is taken for too large, and half its size for the limit, and so on until
    one arrives. The true limit may be up to twice as large: to find it would take more connections.

    A packet no larger than one that has arrived is taken for too large only after twice as many ends: somebody may have
    lowered the limit since.
    """

    def __init__(self) -> None:
        self._announced: int | None = None
        self._arrived = 0
        self._too_large: int | None = None
        self._believed_until = 0.0
        self._teacher: object = None
        self._suspect: object = None
        self._ends = 0

    def __repr__(self) -> str:
        return f"<PacketLimit announced={self._announced} arrived={self._arrived} too_large={self._too_large}>"

    @property
    def announced(self) -> int | None:
        """What the last connection's broker said, in bytes; None if it did not."""
        return self._announced

    def most(self, now: float) -> int | None:
        """Return the bytes of the largest packet to send, None if no limit is known; ``now`` is monotonic seconds."""
        if now > self._believed_until:
            self._too_large = None
        learnt = None if self._too_large is None else max(self._too_large // 2, self._arrived, _LEAST)
        return min((each for each in (self._announced, learnt) if each is not None), default=None)

    def connected(self, announced: int | None) -> None:
        """Begin a connection."""
        self._announced = announced

    def arrived(self, size: int) -> None:
        """Take note of a packet that the broker has acknowledged, ``size`` bytes of it."""
        self._arrived = max(self._arrived, size)

    def is_suspect(self, delivery: object) -> bool:
        """Whether a delivery should be under way alone."""
        return delivery is self._suspect and self._ends >= _ENDS - 1

    def ended_innocently(self) -> None:
        """Take note of a connection whose end says nothing of sizes: those before it are not in a row any more."""
        self._ends = 0

    def ended(self, delivery: object | None, size: int, now: float, *, by_size: bool) -> bool:
        """Take note that the broker ended the connection; return whether that has lowered the limit.

        Args:
            delivery: of those under way, the one to blame, if one is: the largest if the broker said that a packet was
                too large, else the one sent first; None if there was none.
            size: of its packet as it was sent, in bytes.
            now: monotonic, in seconds.
            by_size: whether the broker said that a packet was too large.

        """
        if delivery is not self._suspect:
            self._suspect, self._ends = delivery, 0
        self._ends += 1
        needed = 1 if by_size else _ENDS if size > self._arrived else 2 * _ENDS
        if delivery is None or self._ends < needed:
            return False
        self._ends = _ENDS - 1  # cut, it is tried alone, and needs to fail but once
        if size <= self._arrived:
            self._arrived = 0
        known = self._too_large if now <= self._believed_until else None
        if known is None or size < known:
            self._too_large, self._teacher = size, delivery
        self._believed_until = now + _BELIEVED_S
        return True

    def is_hopeless(self, delivery: object, size: int) -> bool:
        """Whether a delivery has ended connections at ``size`` bytes already, though it cannot be shorter.

        If so, size is not the reason, or nothing fits: what it taught is forgotten.
        """
        if delivery is not self._suspect or self._too_large is None or size < self._too_large:
            return False
        if delivery is self._teacher:
            self._too_large = None
        self._suspect = None
        return True
