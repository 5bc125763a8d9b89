"""Who wants the configuration changed, and what became of that."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from agent.settings import Settings


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change of the configuration; ``detail`` is a sentence on what is wrong, if anything is."""

    state: Literal["applied", "unchanged", "refused", "rolled_back"]
    detail: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A wish to have the configuration changed.

    Attributes:
        configure: reads it.
        taken: called when the box runs with what was read, before the next one is read.
        outcome: cancelled if the agent is to end before it is known.

    """

    configure: Callable[[], Settings]
    taken: Callable[[], None]
    outcome: asyncio.Future[Outcome]


class Asks:
    """What was asked for and is not begun yet, in order."""

    def __init__(self) -> None:
        self._waiting: deque[Ask] = deque()
        self._ended = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, configure: Callable[[], Settings], taken: Callable[[], None]) -> asyncio.Future[Outcome]:
        """Ask; whoever wants the same read that is still to be read shares its outcome: a storm of signals is one."""
        ask = next((each for each in self._waiting if each.configure == configure), None)
        if ask is None:
            ask = Ask(configure, taken, asyncio.get_running_loop().create_future())
            self._waiting.append(ask)
        if self._ended:
            ask.outcome.cancel()
        return ask.outcome

    def next(self) -> Ask:
        """Take the first."""
        return self._waiting.popleft()

    def end(self) -> None:
        """Answer nobody any more."""
        self._ended = True
        for ask in self._waiting:
            ask.outcome.cancel()
