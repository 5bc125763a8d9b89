"""What came of it, for people: by fault, how its jobs ended, and what the breaker said."""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
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
    phases = [list(asks) for _, asks in groupby(history.asked.values(), key=lambda ask: ask.phase)]
    begins = [asks[0].at for asks in phases]
    for asks, begin, end in zip(phases, begins, [*begins[1:], float("inf")], strict=True):
        ends = [finals[ask.key] for ask in asks if ask.key in finals]
        done = Counter(end["placement"]["where"] for end in ends if end["state"] == "SUCCEEDED")
        states = Counter(end["state"] for end in ends)
        row = (
            len(asks),
            sum(begin <= each.at < end and not each.poll for each in history.received),
            *(done["cloud"], done["local"], sum(end["placement"]["reason"] == "fallback" for end in ends)),
            *(states["REJECTED"], states["TIMED_OUT"], states["FAILED"]),
        )
        told = Counter(
            f"{turn.scope} {'opened' if turn.opened else 'closed'}: {turn.word}"
            for turn in turns(history.log)
            if begin <= turn.at < end
        )
        circuits = ", ".join(f"{count} {what}" for what, count in told.items())
        yield f"| {asks[0].phase} | {' | '.join(map(str, row))} | {circuits} |"


def ends(history: History) -> Iterator[str]:
    """Yield how many jobs ended how, line by line."""
    counted = Counter(_end(told[0].body) for told in history.finals().values())
    width = max(map(len, counted), default=0)
    yield from (f"{end:{width}} {count}" for end, count in counted.most_common())


def _end(final: dict[str, Any]) -> str:
    placement, error = final["placement"], final["error"]
    ended = f"{final['state']} {error['code']}" if error else final["state"]
    return f"{ended}, {placement['where']} ({placement['reason']}){', left the box' if placement['egress'] else ''}"
