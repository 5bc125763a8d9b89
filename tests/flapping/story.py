"""The story that the breaker's log tells, held against what the cloud really did."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from agent.standin import Fault, Plan
from tests.chaos.checking import Violation
from tests.flapping.history import History, Received

# From a request's end at the stand-in to the box's line about it, and from an opened circuit to the last request that
# was sent before.
_SLACK_S = 0.5
# Attempts are counted by the minute.
_MINUTE_S = 60.0
# So many failures at the beginning of a life open a circuit, however they are counted.
_ENOUGH = 4

_KEY = {Fault.BAD_KEY, Fault.FORBIDDEN, Fault.NO_CREDITS}
_MODEL = {Fault.NO_MODEL, Fault.END_OF_LIFE}
_MODEL_OR_ALL = {Fault.DEGRADED, Fault.EXHAUSTED, Fault.UNAVAILABLE}
_REQUEST = {Fault.IMAGE_FORMAT, Fault.TOO_LARGE, Fault.UNPROCESSABLE, Fault.USAGE_REFUSED}
WELL = {None, Fault.LATER, Fault.LATER_WHOLE, Fault.EMPTY_CHOICES, Fault.DRIP}
LASTING = _KEY | _MODEL
"""Faults that somebody has to mend: one is enough to leave the cloud alone for long."""
# A request that fails of the key has found the provider there, and one that fails of the model had a good key.
_ORDER = ("provider", "key", "model")


def scopes(plan: Plan) -> set[str]:
    """Return which circuits a fault may open: none, where it says something of its request alone."""
    if plan in WELL or plan in _REQUEST:
        return set()
    if plan in _KEY:
        return {"key"}
    if plan in _MODEL:
        return {"model"}
    return {"model", "provider"} if plan in _MODEL_OR_ALL else {"provider"}


class Turn(NamedTuple):
    """A line of the box's log about a circuit; ``for_s`` is how long it is to be open, or was not closed."""

    at: float
    opened: bool
    scope: str
    word: str
    for_s: float

    def __str__(self) -> str:
        return f"{self.scope} {'opened' if self.opened else 'closed'} ({self.word}, {self.for_s:.1f} s)"


def turns(log: list[dict[str, Any]]) -> list[Turn]:
    """Read the box's log."""
    return [
        Turn(at(event), event["event"].endswith("opened"), event["scope"], event["word"], event["for_s"])
        for event in log
        if event["event"] in {"cloud.breaker_opened", "cloud.breaker_closed"}
    ]


def at(event: dict[str, Any]) -> float:
    """Return when an event was logged, in seconds since the epoch."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def untrue(history: History) -> Iterator[Violation]:
    """See that each line has its cause, that no cause lacks its line, and that an open circuit lets nothing through."""
    for since, until in _lives(history):
        told = [turn for turn in turns(history.log) if since <= turn.at < until]
        received = [each for each in history.received if since <= each.at < until]
        for scope in sorted({turn.scope for turn in told}):
            yield from _in_order([turn for turn in told if turn.scope == scope], received)
        yield from _kept_quiet(told, received, until)
        for turn in told:
            over = min(turn.at + turn.for_s, until)
            through = [each for each in received if turn.at + _SLACK_S < each.at < over and not each.poll]
            if turn.opened and through:
                yield Violation("story", str(turn), f"{len(through)} requests came before that time was over")


def _lives(history: History) -> Iterator[tuple[float, float]]:
    """Yield when the box began and ended each of its lives."""
    begins = [0.0, *(down.since for down in history.down)]
    yield from zip(begins, [*begins[1:], float("inf")], strict=True)


def _in_order(told: list[Turn], received: list[Received]) -> Iterator[Violation]:
    """See that a circuit opens for a fault, and is probed when its time is over."""
    until: float | None = None
    for turn in told:
        recent = [each for each in received if turn.at - _MINUTE_S < each.ended < turn.at + _SLACK_S]
        if turn.opened:
            if until is not None and turn.at < until - _SLACK_S:
                yield Violation("story", str(turn), "it was open")
            if not any(turn.scope in scopes(each.plan) for each in recent):
                yield Violation("story", str(turn), f"there was no such fault, only {[each.plan for each in recent]}")
            until = turn.at + turn.for_s
        else:
            if until is None:
                yield Violation("story", str(turn), "it was not open")
            elif turn.at < until - _SLACK_S:
                yield Violation("story", str(turn), "its time was not over")
            just_now = [each for each in recent if turn.at - _SLACK_S < each.ended and each.whole]
            if not any(_got_beyond(turn.scope, each.plan) for each in just_now):
                yield Violation("story", str(turn), "nothing was answered that says so")
            until = None


def _got_beyond(scope: str, plan: Plan) -> bool:
    """Tell whether a request that met this shows that a circuit may be closed."""
    found = scopes(plan)
    return not found or max(map(_ORDER.index, found)) > _ORDER.index(scope)


def _kept_quiet(told: list[Turn], received: list[Received], until: float) -> Iterator[Violation]:
    """See that what fails is left alone: at once where one answer says enough, or after a few of one kind."""
    for each in received:
        heard = [turn for turn in told if turn.scope in scopes(each.plan) and turn.at < each.ended + _SLACK_S]
        if each.plan in LASTING and each.ended + _SLACK_S < until and not (heard and heard[-1].opened):
            yield Violation("story", str(each.plan), f"nothing was opened for it; the log has {json.dumps(told)}")
    plans = {each.plan for each in received}
    if len(received) >= _ENOUGH and len(plans) == 1 and scopes(*plans) and not told:
        yield Violation(
            "story", str(*plans), f"{len(received)} requests met it and nothing else, and nothing was opened"
        )
