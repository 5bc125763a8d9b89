"""Which execution provider a worker runs on next: a decision on plain state."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.engines.spec import Rung

# How long a rung is not tried again, in seconds: doubled each time that it fails, up to the second. A driver that was
# still starting is found at the first try, and a job that no provider can take is gone by then. A device that is broken
# costs the time of a load that fails and of one that does not: eight times on the first day, then once a day.
_FIRST_S = 600.0
_MOST_S = 86_400.0


@dataclass(slots=True)
class _Record:
    """What is held against a rung.

    Attributes:
        reason: why it failed last; None while it is well, or was never tried.
        aside_s: for how long it was set aside last.
        until: when it may be tried again.

    """

    reason: str | None = None
    aside_s: float = 0.0
    until: float = float("-inf")


class Ladder:
    """The rungs of one model, the preferred first, and what became of each.

    A worker is started on the first that is not set aside, which the last never is: there is nothing else. A rung is
    set aside when its worker cannot load the model, dies by itself, or hangs. Whether the provider is to blame, its
    driver, the job, or a kernel that was short of memory cannot be told from outside. The next rung differs in all but
    the job, which is run alone then. To blame a provider wrongly costs ten minutes of its speed.

    Args:
        rungs: at least one.

    Attributes:
        rung: the one that is, or was last, in use.

    """

    def __init__(self, rungs: Sequence[Rung]) -> None:
        self._rungs = tuple(rungs)
        self._records = [_Record() for _ in rungs]
        self._at = 0
        self._ready_at: float | None = None

    def __repr__(self) -> str:
        aside = [rung.provider for rung, record in zip(self._rungs, self._records, strict=True) if record.reason]
        return f"<Ladder on {self.rung.provider}, {aside or 'none'} set aside>"

    @property
    def rung(self) -> Rung:
        """The one that is, or was last, in use."""
        return self._rungs[self._at]

    @property
    def detail(self) -> str | None:
        """Why the preferred rung is not in use, in one sentence; None if it is, or is tried again."""
        reason = self._records[0].reason if self._at else None
        return None if reason is None else f"{self._rungs[0].provider} is not used: {reason}"

    def choose(self, now: float) -> Rung:
        """Return the rung for the next worker."""
        self._at = self._best(now)
        self._ready_at = None
        return self.rung

    def stands(self, now: float) -> None:
        """Note that a worker on it has loaded the model."""
        self._records[self._at].reason = None
        self._ready_at = now

    def fell(self, reason: str, now: float, *, lasting: bool = False) -> bool:
        """Note that its worker failed to load, or died; return whether there is another to be tried at once.

        Args:
            reason: why, for people.
            now: the monotonic clock, in seconds; here as everywhere.
            lasting: whether it would fail for ever.

        """
        if self._at == len(self._rungs) - 1:
            return False
        record = self._records[self._at]
        lived_s = 0.0 if self._ready_at is None else now - self._ready_at
        # One that lived for longer than it was kept waiting has earned that it begins anew.
        worse = 0 < record.aside_s > lived_s
        record.aside_s = min(2 * record.aside_s, _MOST_S) if worse else _FIRST_S
        record.until = float("inf") if lasting else now + record.aside_s
        record.reason = reason
        return True

    def due(self, now: float) -> bool:
        """Whether a better rung than the one in use may be tried again, at a moment that suits."""
        return self._best(now) < self._at

    def overdue(self, now: float) -> bool:
        """Whether it has waited so long for such a moment that one is to be made."""
        return self.due(now - _FIRST_S)

    def _best(self, now: float) -> int:
        last = len(self._rungs) - 1
        return next((at for at, record in enumerate(self._records) if record.until <= now or at == last), last)
