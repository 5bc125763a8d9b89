"""What of the cloud is not asked for a while, because it failed: a decision on plain state.

Each of three circuits is closed while all is well, open while its scope is not asked, and half-open when that time is
over: one job then probes, and its end closes the circuit or opens it for longer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Scope: TypeAlias = Literal["provider", "key", "model"]

# LiteLLM's rule: more than half of the attempts of the current minute, and not the first one alone.
_WINDOW_S = 60.0
_FEWEST = 2
# What an endpoint's own word may come to: with less it would be asked again and again, and more is a mistake.
_LEAST_S, _LONGEST_S = 1.0, 86_400.0
# Boxes of one fleet fail together, and are not to come back together. Never earlier than the endpoint asks for.
_SPREAD = 0.25
# A probe that was canceled says nothing. Hosted models begin to answer within seconds, where they do at all.
_PROBE_S = 30.0


class _Times(NamedTuple):
    """For how long a circuit is opened, at first and, doubled after each probe that fails, at the most; in seconds."""

    first_s: float
    most_s: float


# A gateway that restarts is back in seconds.
_TRANSIENT = _Times(10.0, 300.0)
_LASTING: dict[Scope, _Times] = {
    # Limits count by the minute, and 429 often comes without a Retry-After.
    "provider": _Times(60.0, 600.0),
    # Somebody has to mend it; who has done so, should not wait for long.
    "key": _Times(600.0, 3600.0),
    # A model that was withdrawn does not come back; a name that was mistyped is mended with a restart.
    "model": _Times(3600.0, 86_400.0),
}

_SENTENCES = {
    "key": "the cloud does not take this box's key: give the box a valid one and restart it",
    "credits": "the cloud account of this box has no credits left: add some",
    "model": "the cloud does not serve the model that this box asks for: set cloud.text_model or cloud.vision_model",
    "rate_limit": "the cloud takes no more of this box's requests for now: try again later",
}
_SENTENCE = "the cloud has failed and is left alone for a while: try again later"


@dataclass(frozen=True, slots=True)
class Fault:
    """What an attempt failed of.

    Attributes:
        scope: what would fail again; ``request`` is the request itself, which says nothing of the others.
        transient: whether it may pass by itself within seconds. Such faults are counted; any other opens its circuit
            at once, as does one that comes with a time to wait.
        word: for the final and the log.
        retry_after_s: how long the endpoint asks not to be asked, in seconds.

    """

    scope: Literal["provider", "key", "model", "request"]
    transient: bool
    word: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Why the cloud is not asked now.

    Attributes:
        scope: of the circuit that is open.
        word: of the fault that opened it.
        until_s: when it may be asked again, by the clock that was given.
        sentence: the same for people.

    """

    scope: Scope
    word: str
    until_s: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Change:
    """A circuit that was opened or closed.

    Attributes:
        scope: of the circuit.
        model: its name, for a model's circuit.
        state: what it is now.
        word: of the fault that opened it.
        for_s: for how long it is opened, or how long it was not closed.

    """

    scope: Scope
    model: str | None
    state: Literal["opened", "closed"]
    word: str
    for_s: float


class Breaker:
    """The circuits of one endpoint: its provider's, its key's, and each of its models'.

    They stand in this order: an answer that a model has ended shows that the key is good and the provider there.

    Args:
        random: returns a number in [0, 1), such as `random.random`.

    All times are the monotonic clock's, in seconds.

    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._shared = (_Circuit("provider", None, random), _Circuit("key", None, random))
        self._models: dict[str, _Circuit] = {}
        self._random = random

    def __repr__(self) -> str:
        return f"<Breaker {[*self._shared, *self._models.values()]}>"

    def refusal(self, model: str, now: float) -> Open | None:
        """Say why a model is not to be asked; None if it may be."""
        refusals = [found for circuit in self._circuits(model) if (found := circuit.refusal(now)) is not None]
        return max(refusals, key=lambda each: each.until_s, default=None)

    def attempt(self, model: str, now: float) -> Open | None:
        """Ask the same for a request that is sent if nothing is returned: it is the probe, where one is due."""
        refused = self.refusal(model, now)
        if refused is None:
            for circuit in self._circuits(model):
                circuit.attempt(now)
        return refused

    def succeeded(self, model: str, now: float) -> list[Change]:
        """Note an attempt that went well; return what changed."""
        return [change for circuit in self._circuits(model) for change in circuit.succeeded(now)]

    def failed(self, model: str, fault: Fault, now: float) -> list[Change]:
        """Note an attempt that failed; return what changed.

        It went well for the scopes before the fault's, and says nothing of those after it: there, another job probes.
        """
        changes: list[Change] = []
        reached = fault.scope != "request"
        for circuit in self._circuits(model):
            if not reached:
                circuit.release()
            elif circuit.scope == fault.scope:
                changes += circuit.failed(fault, now)
                reached = False
            else:
                changes += circuit.succeeded(now)
        return changes

    def _circuits(self, model: str) -> Iterator["_Circuit"]:
        if model not in self._models:
            self._models[model] = _Circuit("model", model, self._random)
        yield from self._shared
        yield self._models[model]


class _Circuit:
    """One scope's circuit: open or half-open while it has a word for why."""

    def __init__(self, scope: Scope, model: str | None, random: Callable[[], float]) -> None:
        self.scope: Scope = scope
        self._model = model
        self._random = random
        # The current minute.
        self._since = 0.0
        self._attempts = self._failures = 0
        # Of one that is not closed.
        self._word: str | None = None
        self._opened_at = self._until = self._for_s = self._probe_until = 0.0

    def __repr__(self) -> str:
        state = f"open by {self._word} until {self._until:.0f} s" if self._word else "closed"
        return f"<{self._model or self.scope} {state}, {self._failures} of {self._attempts} failed>"

    def refusal(self, now: float) -> Open | None:
        until = max(self._until, self._probe_until)
        if self._word is None or now >= until:
            return None
        return Open(self.scope, self._word, until, _SENTENCES.get(self._word, _SENTENCE))

    def attempt(self, now: float) -> None:
        if self._word is not None:
            self._probe_until = now + _PROBE_S

    def release(self) -> None:
        self._probe_until = 0.0

    def succeeded(self, now: float) -> list[Change]:
        word = self._word
        if word is None:
            self._count(now)
            return []
        if now < self._until:  # it was sent before the circuit was opened
            return []
        self._word = None
        self._attempts = self._failures = 0
        self._probe_until = 0.0
        return [Change(self.scope, self._model, "closed", word, now - self._opened_at)]

    def failed(self, fault: Fault, now: float) -> list[Change]:
        if self._word is None:
            self._count(now, failed=True)
            tripped = self._attempts >= _FEWEST and 2 * self._failures > self._attempts
            if fault.transient and fault.retry_after_s is None and not tripped:
                return []
            self._opened_at, self._for_s = now, 0.0
        elif now < self._until:  # one of many that were under way; the first has said it
            return []
        times = _TRANSIENT if fault.transient else _LASTING[self.scope]
        asked_s = times.first_s if fault.retry_after_s is None else fault.retry_after_s
        least_s = min(max(asked_s, _LEAST_S), _LONGEST_S)
        self._for_s = max(least_s, min(2 * self._for_s, times.most_s))
        for_s = self._for_s * (1 + _SPREAD * self._random())
        self._word, self._until, self._probe_until = fault.word, now + for_s, 0.0
        return [Change(self.scope, self._model, "opened", fault.word, for_s)]

    def _count(self, now: float, *, failed: bool = False) -> None:
        if now >= self._since + _WINDOW_S:
            self._since, self._attempts, self._failures = now, 0, 0
        self._attempts += 1
        self._failures += failed
