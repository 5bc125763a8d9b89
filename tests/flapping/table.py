"""What came of it, for people: by fault, how its jobs ended, and what the breaker said."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.flapping.history import History
from tests.flapping.story import turns

_COLUMNS = (
    *("fault", "jobs", "requests", "in the cloud", "on the box", "fell back", "refused", "timed out", "failed"),
    "circuits",
)


def table(history: History) -> Iterator[str]:
    """Yield a table in Markdown: a row for each part of the run."""
    yield f"| {' | '.join(_COLUMNS)} |"
    yield f"|{'---|' * len(_COLUMNS)}"
    finals = {key: told[0].body for key, told in history.finals().items()}
    for phase in dict.fromkeys(ask.phase for ask in history.asked.values()):
        asks = [ask for ask in history.asked.values() if ask.phase == phase]
        ends = [finals[ask.key] for ask in asks if ask.key in finals]
        first, last = min(ask.at for ask in asks), max(ask.at for ask in asks)
        requests = sum(first <= each.at <= last + 1 and not each.poll for each in history.received)
        done = Counter(end["placement"]["where"] for end in ends if end["state"] == "SUCCEEDED")
        states = Counter(end["state"] for end in ends)
        fell_back = sum(end["placement"]["reason"] == "fallback" for end in ends)
        told = Counter(
            f"{turn.scope} {'opened' if turn.opened else 'closed'}: {turn.word}"
            for turn in turns(history.log)
            if first <= turn.at <= last + 1
        )
        row = (len(asks), requests, done["cloud"], done["local"], fell_back, states["REJECTED"], states["TIMED_OUT"])
        numbers = " | ".join(map(str, (*row, states["FAILED"])))
        yield f"| {phase} | {numbers} | {', '.join(f'{count} {what}' for what, count in told.items())} |"


def ends(history: History) -> Iterator[str]:
    """Yield how many jobs ended how, line by line."""
    counted = Counter(_end(told[0].body) for told in history.finals().values())
    width = max(map(len, counted), default=0)
    yield from (f"{end:{width}} {count}" for end, count in counted.most_common())


def _end(final: dict[str, Any]) -> str:
    placement, error = final["placement"], final["error"]
    ended = f"{final['state']} {error['code']}" if error else final["state"]
    return f"{ended}, {placement['where']} ({placement['reason']}){', left the box' if placement['egress'] else ''}"
