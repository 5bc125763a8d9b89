"""The stand-in itself: an ASGI application that goes by a plan."""

import asyncio
import json
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from agent.standin.answer import Answer
from agent.standin.checks import KEY, MODELS, authorised, refusal
from agent.standin.faults import Fault, Later, Plan, Refusal, Shape, Stream, problem, shape
from agent.standin.wire import Message, Receive, Seen, Send, Wire, read

# Like no word that a model of ours would say, so that whose words they are is seen.
_WORDS = tuple(f"cloud{number}" for number in range(256))
_STATUS = "/v2/nvcf/pexec/status/"
# What an endpoint keeps a poll waiting, at the most as long as the client says.
_POLL_S = 0.05


class StandIn:
    """A NIM of chat completions, streamed or whole.

    A plan is used up by each chat completion that arrives; without one it meets `always`.

    Args:
        first_token_s: from a request's arrival to its first token.
        tokens_per_s: after that; each word is a token.
        words: the answer to everything, cut by ``max_tokens``.
        key: which requests must bring.
        models: those that there are.
        also: fields that it takes besides NIM's.

    Attributes:
        plan: what the next requests meet.
        always: what all others meet, one thing or one after another.
        ready: what the health endpoints say.
        requests: all that came, polls and health checks among them.

    """

    def __init__(
        self,
        first_token_s: float = 0.3,
        tokens_per_s: float = 100.0,
        words: Sequence[str] = _WORDS,
        *,
        key: str = KEY,
        models: Collection[str] = MODELS,
        also: Collection[str] = (),
    ) -> None:
        self.plan: deque[Plan] = deque()
        self.always: Plan | Iterator[Plan] = None
        self.ready = True
        self.requests: list[Seen] = []
        self._first_token_s = first_token_s
        self._tokens_per_s = tokens_per_s
        self._words = words
        self._key = key
        self._models = models
        self._also = also
        self._postponed: dict[str, _Postponed] = {}
        self._numbers = count(1)
        self._arrived = asyncio.Condition()

    def __repr__(self) -> str:
        return f"<StandIn requests={len(self.requests)} under_way={self._under_way} planned={len(self.plan)}>"

    @property
    def chats(self) -> list[Seen]:
        """The chat completions that were asked for, retries among them."""
        return [seen for seen in self.requests if _is_chat(seen)]

    @property
    def _under_way(self) -> int:
        return sum(not seen.over.is_set() for seen in self.requests)

    async def chat(self, number: int = 1) -> Seen:
        """Wait for the ``number``-th chat completion to arrive."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.chats) >= number)
        return self.chats[number - 1]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, until it is answered or its client has left."""
        if scope["type"] != "http":
            return
        seen = await read(scope, receive)
        async with self._arrived:
            self.requests.append(seen)
            self._arrived.notify_all()
        answering = asyncio.ensure_future(self._answer(seen, Wire(scope, send, seen)))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            seen.disconnected = not answering.done()
        finally:
            for task in (answering, leaving):
                task.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
            seen.ended_at = asyncio.get_running_loop().time()
            seen.over.set()
        if not seen.disconnected:
            await answering

    async def _answer(self, seen: Seen, wire: Wire) -> None:
        if _is_chat(seen):
            await self._complete(seen, wire)
        elif seen.method == "GET" and seen.path.startswith(_STATUS):
            await self._poll(seen, wire)
        elif seen.method == "GET" and seen.path in {"/v1/health/ready", "/health"}:
            await wire.whole(200 if self.ready else 503, b'{"object":"health-response"}')
        elif seen.method == "GET" and seen.path == "/v1/health/live":
            await wire.whole(200, b'{"object":"health-response"}')
        elif seen.method == "GET" and seen.path == "/v1/models":
            data = [{"id": model, "object": "model", "owned_by": "microsoft"} for model in self._models]
            await wire.whole(200, json.dumps({"object": "list", "data": data}).encode())
        elif seen.method == "GET" and seen.path == "/v1/metrics":
            await wire.whole(200, f"num_requests_running {self._under_way - 1}\n".encode(), "text/plain")
        else:
            await wire.refuse(Refusal(404, problem(404, "Not Found", "404 page not found")))

    async def _complete(self, seen: Seen, wire: Wire) -> None:
        seen.plan = self._next_plan()
        if not authorised(seen.headers, self._key):
            found: Shape | None = shape(Fault.BAD_KEY)
        else:
            found = refusal(seen.body, self._models, self._also) or shape(seen.plan)
        if found is shape(Fault.USAGE_REFUSED) and not seen.body.get("stream_options"):
            found = None
        if isinstance(found, Later):
            number = f"{next(self._numbers):08x}-0000-4000-8000-000000000000"
            self._postponed[number] = _Postponed(seen, found, found.polls)
            await wire.whole(202, b"", nvcf_reqid=number, nvcf_status="pending-evaluation")
        else:
            await self._fulfil(seen, seen, wire, found)

    async def _poll(self, seen: Seen, wire: Wire) -> None:
        """Answer what was postponed, to the one poll that is its last."""
        number = seen.path.removeprefix(_STATUS)
        waiting = self._postponed.get(number)
        if waiting is None or not authorised(seen.headers, self._key):
            await wire.refuse(Refusal(404, problem(404, "Not Found", "Request id not found")))
            return
        seen.plan = waiting.seen.plan
        waiting.polls -= 1
        if waiting.polls > 0:
            await asyncio.sleep(min(_POLL_S, float(seen.headers.get("nvcf-poll-seconds", _POLL_S))))
            await wire.whole(202, b"", nvcf_reqid=number, nvcf_status="pending-evaluation")
            return
        del self._postponed[number]
        await self._fulfil(waiting.seen, seen, wire, shape(waiting.later.then), whole=waiting.later.whole)

    async def _fulfil(self, asked: Seen, seen: Seen, wire: Wire, found: Shape | None, *, whole: bool = False) -> None:
        """Answer what ``asked`` asked for, to ``seen``."""
        if isinstance(found, Refusal):
            await wire.refuse(found)
            return
        answer = Answer(asked.body, self._words, self._first_token_s, self._tokens_per_s)
        stream = found if isinstance(found, Stream) else None
        if stream is not None and stream.after is None:
            await wire.end_badly(stream)
        elif whole or not asked.body.get("stream"):
            await answer.whole(seen, wire, stream)
        else:
            await answer.stream(seen, wire, stream)

    def _next_plan(self) -> Plan:
        if self.plan:
            return self.plan.popleft()
        return next(self.always) if isinstance(self.always, Iterator) else self.always


@dataclass
class _Postponed:
    """A request that was answered by 202."""

    seen: Seen
    later: Later
    polls: int


def _is_chat(seen: Seen) -> bool:
    return seen.method == "POST" and seen.path.endswith("/chat/completions")


async def _left(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
