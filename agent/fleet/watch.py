"""What a fleet's boxes say of themselves: whether they are online, and what became of their remote configuration."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from agent.client import Link
from agent.fleet.targets import Target
from agent.remote import digest
from agent.settings import Mqtt

# What is retained comes with the subscription, one after another; after so long a silence there is no more of it.
_RETAINED_S = 2.0
# What clears a layer: one that sets nothing. An empty message is kept by no broker, and so never comes to a box that is
# offline, and whose session the broker has lost.
NOTHING = b"{}"

State: TypeAlias = Literal["own", "waiting", "applied", "refused", "rolled_back"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a box is.

    Attributes:
        status: ``online`` or ``offline``; empty if this broker has never seen it.
        state: what its remote configuration has come to; ``own``: it has none, ``waiting``: it has not said yet.
        hash: of what it should have, else of what it has; empty if there is none.
        report: what it said last; empty if it has said nothing.

    """

    status: str
    state: State
    hash: str
    report: dict[str, Any]


class Watch:
    """A connection on which boxes are watched, and told what to be; enter it to have it.

    Args:
        mqtt: the broker, and the operator's login.
        targets: the boxes.

    """

    def __init__(self, mqtt: Mqtt, targets: Sequence[Target]) -> None:
        self._targets = targets
        self._said: dict[str, bytes] = {}
        self._topics = {
            topic
            for each in targets
            for topic in (each.topics.status, each.topics.config_reported, each.topics.config_desired)
        }
        roots = sorted({each.topics.root for each in targets})
        # The status comes last: a broker sends what is retained filter by filter.
        ends = ("config/desired", "config/reported", "status")
        filters = [f"{root}/+/{end}" for root in roots for end in ends]
        self._news = asyncio.Event()
        # At QoS 1 mosquitto queues what is retained, and drops without a word what is more than 1,000 messages: of 500
        # boxes, 480 were taken for offline.
        self._link = Link(mqtt, "the operator", filters, take=self._take, lost=self._news.set, qos=0)

    async def __aenter__(self) -> Self:
        """Connect and subscribe; raises as the link does."""
        await self._link.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._link.__aexit__(kind, error, trace)

    async def remembered(self) -> None:
        """Wait until what is retained of every box has come, or nothing comes any more: of some there may be none."""
        clock = asyncio.get_running_loop().time
        while not all(each.topics.status in self._said for each in self._targets):
            if not await self.news(clock() + _RETAINED_S):
                return

    async def news(self, until: float) -> bool:
        """Wait for a message, until a time on the loop's clock; return whether one came.

        Raises:
            ClientError: the connection was lost.

        """
        try:
            async with asyncio.timeout_at(until):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        if self._link.lost:
            raise self._link.loss()
        return True

    async def tell(self, target: Target, payload: bytes) -> None:
        """Publish what a box is to be, retained, and forget what it has said so far.

        Raises:
            ClientError: the broker did not take it.

        """
        self._said.pop(target.topics.config_reported, None)
        await self._link.publish(target.topics.config_desired, payload, retain=True)

    def standing(self, target: Target) -> Standing:
        """Tell how a box is, by what has been heard."""
        topics = target.topics
        status = self._said.get(topics.status, b"").decode("ascii", "replace")
        wanted = self._said.get(topics.config_desired, b"")
        report = _read(self._said.get(topics.config_reported))
        known = digest(wanted)
        state: State = "waiting"
        if report.get("hash") == known:
            state = report["state"]
        if (state == "applied" and wanted in (b"", NOTHING)) or not (wanted or report):
            state = "own"
        return Standing(status, state, known if wanted else "", report)

    def _take(self, topic: str, payload: bytes) -> None:
        if topic in self._topics:
            self._said[topic] = payload
            self._news.set()


def _read(message: bytes | None) -> dict[str, Any]:
    """Read a report; whatever is none says nothing."""
    try:
        report = json.loads(message or b"{}")
    except ValueError:
        return {}
    if not isinstance(report, dict) or report.get("state") not in ("applied", "refused", "rolled_back"):
        return {}
    return report
