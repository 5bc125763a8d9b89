"""What was asked and what was answered, held against each other from outside."""

import asyncio
import json
from collections import Counter, defaultdict

from tests.fuzz.messages import Shot
from tests.fuzz.properties import NODE

# How many may be unanswered at a time. The box's queue is larger, so that it refuses no honest job.
WINDOW = 256
# Without any answer for so long, there will be none.
_PATIENCE_S = 90.0


class Silent(Exception):  # noqa: N818  it tells what happened
    """Nothing was answered for a long time; the message tells what waits."""


class Ledger:
    """The finals that must come, and those that came. It lives on the event loop."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.sorts: Counter[str] = Counter()
        self._asked: dict[str, Shot] = {}
        self._unanswered: set[str] = set()
        # Of each client, its finals by their ids: the hashes of their payloads, more than one if a final changed.
        self._finals: defaultdict[str, dict[str, set[int]]] = defaultdict(dict)
        self._wrong: list[str] = []
        self._news = asyncio.Event()

    @property
    def finals(self) -> int:
        """How many distinct ones came."""
        return sum(self.codes.values())

    def ask(self, shot: Shot) -> None:
        """Take note of a message that is about to be sent."""
        self.kinds[shot.kind] += 1
        self.sorts[shot.sort] += 1
        if shot.finals == "none":
            return
        first = shot.client not in self._asked
        self._asked.setdefault(shot.client, shot)
        # A repeat is answered by the stored final again; while the job runs, the one final is for both. At QoS 0 it may
        # be lost.
        if shot.finals == "one" and (first or shot.qos):
            self._unanswered.add(shot.client)

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a message that a client of the box received."""
        body = json.loads(payload)
        if "node" not in body:
            return  # a state or a chunk
        client, job_id = body["client"], body["id"]
        if not topic.startswith((f"{NODE}/res/{client}/", f"clients/{client}/")):
            self._wrong.append(f"a final of {client} was published to {topic[:100]}")
        if job_id not in self._finals[client]:
            self._judge(client, body)
        self._finals[client].setdefault(job_id, set()).add(hash(payload))
        self._unanswered.discard(client)
        self._news.set()

    async def room(self, window: int = WINDOW) -> None:
        """Wait until fewer than ``window`` are unanswered.

        Raises:
            Silent: nothing comes any more.

        """
        while len(self._unanswered) >= window:
            self._news.clear()
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._news.wait()
            except TimeoutError:
                waiting = Counter(self._asked[each].kind for each in self._unanswered)
                raise Silent(f"no answer for {_PATIENCE_S:g} s; unanswered: {dict(waiting)}") from None

    async def quiet(self) -> None:
        """Wait until everything is answered."""
        await self.room(1)

    def findings(self) -> list[str]:
        """Tell all that should not be, a sentence each."""
        found = list(self._wrong)
        for each in sorted(self._unanswered):
            again = ", said again," if each in self._finals else ""
            found.append(f"{self._asked[each].kind}{again} was not answered: {each}")
        for client, finals in self._finals.items():
            shot = self._asked.get(client)
            what = f"{client}, {'nobody asked' if shot is None else shot.kind}"
            if shot is None or len(finals) > 1:
                found.append(f"{what}: finals under {sorted(finals)}")
            elif shot.job_id is not None and shot.job_id not in finals:
                found.append(f"{what}: a final under {next(iter(finals))} instead of {shot.job_id}")
            if any(len(each) > 1 for each in finals.values()):
                found.append(f"{what}: a final changed")
        return found

    def _judge(self, client: str, body: dict[str, str | dict[str, str]]) -> None:
        error = body["error"]
        self.codes[error["code"] if isinstance(error, dict) else "ok"] += 1
        shot = self._asked.get(client)
        if shot is not None and shot.honest and body["state"] != "SUCCEEDED":
            self._wrong.append(f"{shot.kind} did not succeed: {error}")
