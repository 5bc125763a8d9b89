"""How long a wait is, from how long jobs took."""


class Pace:
    """How long jobs take, from those that ended: an exponentially weighted mean, in seconds."""

    # A new job counts a fifth: the mean follows a change of work within about ten jobs, yet one odd job moves
    # it little.
    _WEIGHT = 0.2

    def __init__(self) -> None:
        self.mean_s: float | None = None

    def __repr__(self) -> str:
        return f"<Pace mean_s={self.mean_s}>"

    def ran(self, seconds: float) -> None:
        """Take note of a job that ran this long."""
        old = self.mean_s
        self.mean_s = seconds if old is None else old + self._WEIGHT * (seconds - old)

    def wait_s(self, ahead: int, slots: int) -> float | None:
        """Predict the wait behind ``ahead`` jobs for one of ``slots``; None while nothing is measured."""
        return None if self.mean_s is None else round(ahead * self.mean_s / slots, 3)
