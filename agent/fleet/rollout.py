"""A change on its way to many boxes: tried on one, then sent to the others, as long as no box is harmed."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from agent.client import ClientError
from agent.fleet.targets import Target
from agent.fleet.watch import Watch
from agent.remote import digest

Ending: TypeAlias = Literal["applied", "refused", "rolled_back", "offline", "silent", "not_sent", "never_seen"]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a change on one box.

    Attributes:
        state: as the box reported it; or ``offline``: it has it to come, ``silent``: it did not answer in time,
            ``not_sent``: another box had not taken it, ``never_seen``: this broker knows nothing of it, so it was not
            sent either.
        seconds: from the publish to the report.
        report: the box's own.

    """

    device: str
    state: Ending
    seconds: float | None
    report: dict[str, Any]

    @property
    def harmed(self) -> bool:
        """Whether no other box should be sent the change."""
        return self.state in ("refused", "rolled_back", "silent")


async def roll_out(
    watch: Watch, targets: Sequence[Target], payload: bytes, wait_s: float, tell: Callable[[Result], object]
) -> list[Result]:
    """Send a change to boxes: to one that is online first, and once that one runs with it to the others.

    After the first box that does not take it, it is sent to no other. Boxes that are offline are sent it last, and not
    waited for. A box that has never said how it is may be online for all that is known, and is not sent it at all.

    Args:
        watch: entered, and `Watch.remembered`.
        targets: the boxes.
        payload: the layer; `NOTHING` to take one away.
        wait_s: how long a box may take to answer, in seconds.
        tell: called with each result as it is known.

    Raises:
        ClientError: none is online, or the connection was lost.

    """
    rollout = _Rollout(watch, payload, wait_s, tell)
    status = {each: watch.standing(each).status for each in targets}
    online = [each for each in targets if status[each] == "online"]
    offline = [each for each in targets if status[each] not in ("online", "")]
    if not online:
        raise ClientError(
            "none of these devices is online, so there is none to try the change on, and nothing was sent: "
            "see `edge-slm fleet status`"
        )
    for some in (online[:1], online[1:]):
        await rollout.send(some)
        await rollout.finish()
    await rollout.send(offline, awaited=False)
    for each in targets:
        if not status[each]:
            rollout.end(each, "never_seen")
    return rollout.results


class _Rollout:
    def __init__(self, watch: Watch, payload: bytes, wait_s: float, tell: Callable[[Result], object]) -> None:
        self.results: list[Result] = []
        self._watch = watch
        self._payload = payload
        self._hash = digest(payload)
        self._wait_s = wait_s
        self._tell = tell
        self._sent: dict[Target, float] = {}
        self._clock = asyncio.get_running_loop().time

    async def send(self, targets: Sequence[Target], *, awaited: bool = True) -> None:
        for target in targets:
            self._look()
            if any(result.harmed for result in self.results):
                self.end(target, "not_sent")
                continue
            sent_at = self._clock()
            await self._watch.tell(target, self._payload)
            if awaited:
                self._sent[target] = sent_at
            else:
                self.end(target, "offline")

    async def finish(self) -> None:
        """Wait for the answers of all that were sent to."""
        while self._sent:
            until = min(self._sent.values()) + self._wait_s
            if not await self._watch.news(until):
                for target in [each for each, sent_at in self._sent.items() if self._clock() >= sent_at + self._wait_s]:
                    self.end(target, "silent")
            self._look()

    def _look(self) -> None:
        """Take in what has been heard."""
        for target in [*self._sent]:
            report = self._watch.standing(target).report
            if report.get("hash") == self._hash:
                self.end(target, report["state"], report)

    def end(self, target: Target, state: Ending, report: dict[str, Any] | None = None) -> None:
        """Take note of what became of a box, and tell it."""
        sent_at = self._sent.pop(target, None)
        seconds = None if sent_at is None or report is None else round(self._clock() - sent_at, 3)
        self.results.append(Result(target.id, state, seconds, report or {}))
        self._tell(self.results[-1])
