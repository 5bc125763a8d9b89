"""An answer as it comes: server-sent events with OpenAI's chunks, or the whole in one piece."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Literal, TypeAlias, cast

import httpx
from httpx_sse import EventSource, ServerSentEvent

from agent.contract.events import Usage
from agent.engines.cloud import faults

Finish: TypeAlias = Literal["stop", "length", "content_filter"]

_FINISHES: dict[str, Finish] = {"length": "length", "content_filter": "content_filter"}
# No model has a window like that: what says more counts nothing.
_MOST_TOKENS = 10_000_000
# A chunk of one token is 200 to 700 characters of JSON, and a whole answer some thousands. Of a mebibyte in the worst
# shape the event loop stands still for 30 ms.
_MOST_CHARACTERS = 1 << 20
# The end of a stream usually comes with its last chunk. A connection that was not read to the end is of no more use,
# and the next job pays for a new one: a round trip or three.
_END_S = 0.1
# What follows a finish_reason, the usage and the end, is known with it. Who sends nothing more has nothing.
_USAGE_S = 2.0


class Answer:
    """What has come of an answer. It takes chunks, and gives words.

    Attributes:
        tokens: how many chunks had words, which is how many tokens there were, or fewer.
        usage: what the endpoint counted; None where it does not say.
        ended: whether the stream said that this was all.

    """

    def __init__(self) -> None:
        self.tokens = 0
        self.usage: Usage | None = None
        self.ended = False
        self._finish: Finish | None = None

    def __repr__(self) -> str:
        return f"<Answer of {self.tokens} tokens, {self._finish or ('ended' if self.ended else 'under way')}>"

    @property
    def whole(self) -> bool:
        """Whether all its words have come."""
        return self._finish is not None or self.ended

    @property
    def finish(self) -> Finish:
        """Why it ended.

        Raises:
            Failed: it did not: its stream was cut off, however cleanly.

        """
        if not self.whole:
            raise faults.truncated("no_finish")
        return self._finish or "stop"

    def take(self, data: str) -> str:
        """Take the next event's data; return the words in it.

        Raises:
            Failed: it is an error, or nothing that can be read, or too much.

        """
        if data == "[DONE]":
            self.ended = True
            return ""
        if len(data) > _MOST_CHARACTERS:
            raise faults.truncated("endless")
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise faults.truncated("malformed") from error
        if not isinstance(chunk, dict):
            raise faults.truncated("malformed")
        return self._read(chunk)

    def take_whole(self, data: bytes) -> str:
        """Take an answer that came in one piece; return its words."""
        words = self.take(data.decode("utf-8", "replace"))
        if self._finish is None:
            raise faults.truncated("no_finish")
        return words

    def _read(self, chunk: dict[str, Any]) -> str:
        if chunk.get("error") or ("choices" not in chunk and ("status" in chunk or "detail" in chunk)):
            raise faults.streamed(chunk)
        self.usage = _usage(chunk.get("usage")) or self.usage
        # Without choices: the usage that ends a stream, or the verdict on the prompt with which Azure begins one.
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return ""
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:
            self._finish = _FINISHES.get(finish, "stop")
        said = choice.get("delta") or choice.get("message")
        words = said.get("content") if isinstance(said, dict) else None
        if not isinstance(words, str) or not words:
            return ""
        self.tokens += 1
        return words


async def read(response: httpx.Response, answer: Answer) -> AsyncGenerator[str, None]:
    """Read a response to its end; yield the words as they come.

    Raises:
        Failed: it is no answer, or an error.
        httpx.HTTPError: the connection broke before the answer was whole.

    """
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        # Of a request that was put off, or a server that does not stream.
        yield answer.take_whole(await response.aread())
        return
    if kind != "text/event-stream":
        raise faults.unlike(kind)
    async with aclosing(EventSource(response).aiter_sse()) as events:
        while not answer.ended and (event := await _next(events, answer)) is not None:
            words = answer.take(event.data)
            if words:
                yield words
        with suppress(TimeoutError, httpx.HTTPError, faults.Failed):
            async with asyncio.timeout(_END_S):
                async for _ in events:
                    pass


async def _next(events: AsyncGenerator[ServerSentEvent, None], answer: Answer) -> ServerSentEvent | None:
    """Wait for the next event; None if there is none, or none that a whole answer needs.

    Proxies and servers end connections as they like: what has all its words is not lost by that.
    """
    try:
        async with asyncio.timeout(_USAGE_S if answer.whole else None):
            return await anext(events, None)
    except (TimeoutError, httpx.HTTPError, faults.Failed):
        if not answer.whole:
            raise
        return None


async def beginning(response: httpx.Response, most: int) -> bytes:
    """Read a response, but not more than about ``most`` bytes of it."""
    found = bytearray()
    async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_bytes())) as pieces:
        async for piece in pieces:
            found += piece
            if len(found) >= most:
                break
    return bytes(found)


def _usage(found: object) -> Usage | None:
    if not isinstance(found, dict):
        return None
    details = found.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
    return Usage(_count(found, "prompt_tokens"), _count(found, "completion_tokens"), cached)


def _count(found: dict[str, Any], name: str) -> int:
    value = found.get(name)
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else 0
