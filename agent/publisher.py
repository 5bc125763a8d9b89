"""A job's words on their way out: numbered, gathered, and bounded.

The first words go at once; later ones are gathered for ``flush_s``, because a publish costs far more than the
few bytes of a token. Words that cannot go out now, since the broker is away or does not read, stay with the
job and go with its next chunks. So ``seq`` has no gaps of our making, and what is kept for a job is never more
than its own answer, which ``max_tokens`` bounds.
"""

import asyncio
from collections.abc import Callable
from typing import Literal

from agent.contract import events
from agent.contract.jobs import Job, Key, Reply
from agent.contract.messages import Outgoing
from agent.contract.topics import Topics

# Of one chunk, in characters: 1 KB of the longest of them. What was kept over an outage of the broker may be a whole
# answer, and a broker's largest packet smaller than that. A model of 100 tokens/s makes 25 in 50 ms.
_MOST_AT_ONCE = 256

Send = Callable[[Outgoing], bool]
Event = Literal["state", "chunk", "final"]


def addressed(topics: Topics, key: Key, reply: Reply, event: Event, payload: bytes, qos: Literal[0, 1]) -> Outgoing:
    """Put an event of the job ``key`` where its client wants it.

    On a response topic all of a job's events share one topic, and a user property tells them apart.
    """
    correlation = None if reply.correlation is None else bytes.fromhex(reply.correlation)
    if reply.topic is None:
        return Outgoing(f"{topics.results(*key, reply.pool)}/{event}", payload, qos, correlation=correlation)
    return Outgoing(reply.topic, payload, qos, correlation=correlation, properties=(("event", event),))


class Stream:
    """The words of one attempt at one job. It lives on the event loop's thread.

    Args:
        job: whose words they are.
        attempt: which run, from 1.
        topics: this node's topics.
        send: publishes, or says that it cannot now; it keeps nothing then.
        flush_s: how long words are gathered after a chunk, in seconds.

    """

    def __init__(self, job: Job, attempt: int, topics: Topics, send: Send, flush_s: float) -> None:
        self._job = job
        self._attempt = attempt
        self._topics = topics
        self._send = send
        self._flush_s = flush_s
        self._parts: list[str] = []
        self._pending = ""  # of a job that streams, what is not published
        self._timer: asyncio.TimerHandle | None = None
        self._next_flush = 0.0
        self._closed = False
        self.seq = 0

    def __repr__(self) -> str:
        return f"<Stream {self._job.key} attempt={self._attempt} seq={self.seq} closed={self._closed}>"

    @property
    def text(self) -> str:
        """All the words so far, published or not."""
        return "".join(self._parts)

    def add(self, text: str) -> None:
        """Take the next words; publish them now, or soon."""
        self._parts.append(text)
        if not self._job.stream or self._closed:
            return
        self._pending += text
        if self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._next_flush:
            self._flush()
        else:
            self._timer = loop.call_at(self._next_flush, self._flush)

    def close(self) -> None:
        """Publish what is left; nothing goes out afterwards. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._job.stream and not self._closed:
            self._flush()
        self._closed = True

    def abandon(self) -> None:
        """Let nothing more go out: the attempt is void."""
        if self._timer is not None:
            self._timer.cancel()
        self._closed = True

    def _flush(self) -> None:
        self._timer = None
        self._next_flush = asyncio.get_running_loop().time() + self._flush_s
        while self._pending:
            text = self._pending[:_MOST_AT_ONCE]
            payload = events.chunk(self._job.id, self._attempt, self.seq, text)
            if not self._send(addressed(self._topics, self._job.key, self._job.reply, "chunk", payload, 0)):
                return
            self.seq += 1
            self._pending = self._pending[len(text) :]
