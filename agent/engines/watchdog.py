"""When a silent worker counts as hung: a decision on plain state."""

from dataclasses import dataclass
from typing import NamedTuple

from agent.engines import wire

# How many times the longest of the steps that were measured a worker may be silent. Every answer begins with a slice of
# its prompt, which is the longest step there is, so that this is for the box alone: one that throttles for heat is some
# three times slower, and two other busy processes to a core make it three times slower again.
_FACTOR = 10
# With every message, the longest step counts this much less: by half after some 700, which are a few answers. One bad
# moment is not remembered for days.
_FADE = 0.999
# A prompt with pictures is one call, and every prompt is where the provider takes no slices: 2,500 tokens at 3 to 17 a
# second, by board, of a full-size model. Each may take so long, in seconds, while it is not known better; 2 a second is
# slower than anybody would wait for.
_CALL_TOKEN_S = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a worker may be silent, in seconds.

    Attributes:
        least_s: how long it may in every case. A small model's longest step takes 0.1 s, and took 1.2 s when
            eight busy processes came to share its two cores.
        most_s: how long it may at the most, unless it reads from the disk, and while no step was measured. The longest
            of a text, 16 tokens of prompt of a full-size model on a small board, takes some 10 s.
        load_s: how long a load may take, or the return of what was swapped out. 3 GB from the slowest card, at 10 MB/s,
            take 5 minutes.
        watch_s: between two looks at it.

    """

    least_s: float = 10.0
    most_s: float = 120.0
    load_s: float = 1800.0
    watch_s: float = 1.0


class Effort(NamedTuple):
    """What a process has done since its start: time on a core, in the kernel's ticks, and pages read from disk."""

    cpu: int = 0
    faults: int = 0


class Watchdog:
    """Watches one worker, from its start to its end.

    A silent worker is to blame unless there is an excuse that can be seen. One that waits for pages from the disk (it
    was swapped out, or the weights were) is slow and not hung: it has as long as a load. One that computes while it
    loads, or before a job has started, tokenises, decodes pictures or fills a cache with zeros: that is work of any
    length, which no measured step foretells, and has the ceiling alone. So has a job that is moved to another cache. An
    excuse wipes out the blame before it: slow storage gives a core something to do in every second look only.

    Time in which this process itself did not run does not count: a debugger or a frozen container stops both, and
    whoever runs on first must not blame the other.

    Attributes:
        silent_s: how long the worker has said nothing.

    Args:
        patience: how long it may be silent.
        now: the monotonic clock, in seconds; here as everywhere below.

    """

    def __init__(self, patience: Patience, now: float) -> None:
        self._patience = patience
        self._at = now
        self._loading = True
        # Jobs on which the worker has the last word still to say: how many tokens the one call has that its
        # prompt is, 0 if that is over or there is none, None while it has not started or is moved to another cache.
        self._owed: dict[int, int | None] = {}
        self._effort = Effort()
        self.silent_s = 0.0
        self._blamed_s = 0.0
        self._unread_s = 0.0
        self._unjudged_s = 0.0
        self._slept = False
        self._step_s: float | None = None
        self._call_token_s: float | None = None

    def __repr__(self) -> str:
        return f"<Watchdog {len(self._owed)} jobs owed, silent {self.silent_s:.1f} of {self.allowed_s:.1f} s>"

    @property
    def owes(self) -> int:
        """On how many jobs the worker has the last word still to say, closed ones included."""
        return len(self._owed)

    @property
    def watching(self) -> bool:
        """Whether there is something that the worker is to say."""
        return self._loading or bool(self._owed)

    @property
    def allowed_s(self) -> float:
        """How long the worker may be silent now without an excuse."""
        patience = self._patience
        step_s = patience.most_s if self._step_s is None else _FACTOR * self._step_s
        token_s = _CALL_TOKEN_S if self._call_token_s is None else _FACTOR * self._call_token_s
        return min(max(step_s, patience.least_s), patience.most_s) + self._call * min(token_s, _CALL_TOKEN_S)

    @property
    def _call(self) -> int:
        return max((tokens or 0 for tokens in self._owed.values()), default=0)

    def submitted(self, job: int, now: float) -> None:
        """Note that the worker is given a job."""
        if not self._owed:
            self._pass(now)
            self._heard()
        self._owed[job] = None

    def hear(self, message: wire.Message, now: float) -> None:
        """Note what the worker said, and how long its step took."""
        self._pass(now)
        if self._owed and not self._slept:
            self._learn(message)
        self._heard()
        match message:
            case wire.Ready():
                self._loading = False
            case wire.Started(job=job) if job in self._owed:
                self._owed[job] = message.prompt if message.image or message.one_call else 0
            case wire.Progress(job=job) if job in self._owed:
                self._owed[job] = None if message.anew else 0
            case wire.Done() | wire.Similar() | wire.Refused() | wire.Canceled():
                self._owed.pop(message.job, None)

    def look(self, effort: Effort, now: float) -> bool:
        """Decide whether the worker hangs, by what it has done up to now; ask every ``watch_s``."""
        self._pass(now)
        unstarted = self._loading or None in self._owed.values()
        reads = effort.faults > self._effort.faults
        computes = unstarted and effort.cpu > self._effort.cpu
        self._effort = effort
        self._blamed_s = 0.0 if reads or computes else self._blamed_s + self._unjudged_s
        self._unread_s = 0.0 if reads else self._unread_s + self._unjudged_s
        self._unjudged_s = 0.0
        patience, call_s = self._patience, self._call * _CALL_TOKEN_S
        most_s = patience.load_s if self._loading else patience.most_s
        return self.watching and (
            self._blamed_s > self.allowed_s
            or self._unread_s > most_s + call_s
            or self.silent_s > patience.load_s + call_s
        )

    def _pass(self, now: float) -> None:
        """Let time pass, but not what this process has slept through."""
        passed_s = min(now - self._at, 2 * self._patience.watch_s)
        # What the worker said meanwhile waited to be heard: it tells nothing of its pace.
        self._slept = self._slept or passed_s < now - self._at
        self._at = now
        self.silent_s += passed_s
        self._unjudged_s += passed_s

    def _heard(self) -> None:
        self.silent_s = self._blamed_s = self._unread_s = self._unjudged_s = 0.0
        self._slept = False

    def _learn(self, message: wire.Message) -> None:
        """Take in how long the worker was silent before it said this."""
        tokens = self._owed.get(message.job, 0) if isinstance(message, wire.Progress) else 0
        if tokens is None:
            return  # most of it was no step: a new cache was filled
        if tokens:
            self._call_token_s = max(self.silent_s / tokens, _FADE * (self._call_token_s or 0.0))
        elif isinstance(message, wire.Progress | wire.Text | wire.Done | wire.Canceled):
            self._step_s = max(self.silent_s, _FADE * (self._step_s or 0.0))
