"""The order of acknowledgements, as plain state."""

from collections import deque


class Receipt:
    """One message's place in the order of receipt."""

    __slots__ = ("_done", "_mid")

    def __init__(self, mid: int) -> None:
        self._mid = mid
        self._done = False


class AckOrder:
    """Holds back acknowledgements until those of all earlier messages may go too.

    MQTT asks for PUBACKs in the order of receipt (MQTT 5, 4.6), while messages are stored in any order. One
    instance serves one network connection: a packet identifier means nothing on the next.
    """

    def __init__(self) -> None:
        self._waiting: deque[Receipt] = deque()

    def __repr__(self) -> str:
        return f"<AckOrder {len(self._waiting)} waiting>"

    def received(self, mid: int) -> Receipt:
        """Take note of a message, at its receipt."""
        receipt = Receipt(mid)
        self._waiting.append(receipt)
        return receipt

    def done(self, receipt: Receipt) -> list[int]:
        """Mark a message as safe; return the packet identifiers to acknowledge now, in order."""
        receipt._done = True  # noqa: SLF001  the two classes are one thing
        due = []
        while self._waiting and self._waiting[0]._done:  # noqa: SLF001
            due.append(self._waiting.popleft()._mid)  # noqa: SLF001
        return due
