"""Whether a box has too much to do, or is too ill, for jobs that could run elsewhere: a decision with two marks."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Word: TypeAlias = Literal["model", "memory", "heat", "queue", "wait"]

# Shares of the places. Jobs are sent away while there is still room for those that may not go: a quarter of the queue.
# A queue of 64 has worked off 16 before they stay again, so that one start and one arrival do not turn it over.
_FULL, _ROOMY = 0.75, 0.5
# The low marks, as shares of the high ones. A wait halves when a few jobs have ended, and is foretold anew with each:
# predictions were wanted within 40 % in 9 of 10 cases, so half of the mark is no error.
_WAIT = 0.5
# 32 MiB above the default mark, and no more: where a box rests between the two, one dip would send its jobs away for
# good. It may rest anywhere above the high one, since a worker keeps idle caches until a job wants their room, and
# leaves just the default mark free beside them; with 1 GB it does rest near it.
_MEMORY = 1.125
# The kernel's average over 10 s falls by half in 7 s without pressure.
_PRESSURE = 0.5
# Governors let go a few degrees below where they gripped; the kernel's own trip points have 2 to 5 of hysteresis.
_COOLER_C = 5.0


@dataclass(frozen=True, slots=True)
class Signals:
    """How a box and the line of one of its engines are.

    Attributes:
        wait_s: until a job that came now would start, as far as that can be foretold.
        full: the share of the places in the queue that is taken, from 0 to 1.
        available_bytes: memory that could still be had; None where the kernel does not say, as below.
        memory_pressure: share of the last 10 s in which something waited for memory, in percent.
        temperature_c: the hottest sensor's.
        throttled: whether the box runs slower than it could, for its heat or its power supply.
        healthy: whether the engine can run jobs at all.

    """

    wait_s: float | None = None
    full: float = 0.0
    available_bytes: int | None = None
    memory_pressure: float | None = None
    temperature_c: float | None = None
    throttled: bool | None = None
    healthy: bool = True


class _Mark:
    """A value that is too high from ``high`` on, until it is ``low`` again or unknown.

    What is not known stops nothing: else a sensor that falls silent would send every job away for ever.
    """

    def __init__(self, high: float, low: float) -> None:
        self._high = high
        self._low = low
        self.passed = False

    def update(self, value: float | None) -> None:
        if value is None or value <= self._low:
            self.passed = False
        if value is not None and value >= self._high:
            self.passed = True


class Saturation:
    """Remembers which marks were passed, and says in one word why jobs should go elsewhere.

    Args:
        wait_s: the high mark of the foretold wait; here as below.
        available_bytes: of the memory that could still be had, below which there is too little.
        memory_pressure: in percent.
        temperature_c: in degrees Celsius.

    """

    def __init__(self, wait_s: float, available_bytes: int, memory_pressure: float, temperature_c: float) -> None:
        self._throttled = False
        self._healthy = True
        self._wait = _Mark(wait_s, wait_s * _WAIT)
        self._full = _Mark(_FULL, _ROOMY)
        self._memory = _Mark(-available_bytes, -available_bytes * _MEMORY)
        self._pressure = _Mark(memory_pressure, memory_pressure * _PRESSURE)
        self._heat = _Mark(temperature_c, temperature_c - _COOLER_C)

    def __repr__(self) -> str:
        return f"<Saturation {self.word}>"

    @property
    def word(self) -> Word | None:
        """Why the box is saturated, the gravest first; None if it is not."""
        reasons: dict[Word, bool] = {
            "model": not self._healthy,
            "memory": self._memory.passed or self._pressure.passed,
            "heat": self._heat.passed or self._throttled,
            "queue": self._full.passed,
            "wait": self._wait.passed,
        }
        return next((word for word, holds in reasons.items() if holds), None)

    def update(self, signals: Signals) -> Word | None:
        """Take in how the box is now; return `word`."""
        self._healthy = signals.healthy
        self._throttled = signals.throttled is True
        self._wait.update(signals.wait_s)
        self._full.update(signals.full)
        self._memory.update(None if signals.available_bytes is None else -signals.available_bytes)
        self._pressure.update(signals.memory_pressure)
        self._heat.update(signals.temperature_c)
        return self.word
