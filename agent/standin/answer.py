"""The words of one answer, and all the ways in which they end."""

import asyncio
import json
from collections.abc import Sequence

from agent.standin.checks import texts
from agent.standin.faults import Refusal, Stream, problem
from agent.standin.wire import Message, Seen, Wire

_DONE = b"data: [DONE]\n\n"
_NO_JSON = b'data: {"choices": [{"index": 0, "delta": {"cont\n\n'
_ENDS = {"error", "truncated", "cut", "stalled"}


class Answer:
    """The words of one answer, and when each is due."""

    def __init__(self, body: Message, words: Sequence[str], first_token_s: float, tokens_per_s: float) -> None:
        self._begun = asyncio.get_running_loop().time()
        self._first_token_s = first_token_s
        self._tokens_per_s = tokens_per_s
        most = body.get("max_tokens", len(words))
        self._words = [word if number == 0 else f" {word}" for number, word in enumerate(words[:most])]
        self._reason = "length" if len(words) > most else "stop"
        self._model = body["model"]
        self._wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        prompt = sum(len(text.split()) for text in texts(body))
        spoken = len(self._words)
        self._usage = {"prompt_tokens": prompt, "completion_tokens": spoken, "total_tokens": prompt + spoken}

    async def stream(self, seen: Seen, wire: Wire, wrong: Stream | None) -> None:
        """Send it word by word, up to where it ends badly, if it does."""
        how = wrong.how if wrong is not None else None
        ends = wrong is not None and how in _ENDS
        spoken = self._words[: wrong.after] if wrong is not None and ends else self._words
        await wire.head(200, "text/event-stream")
        if how == "empty":
            await wire.event({**self._object(), "choices": []})
        for number, word in enumerate(spoken):
            await self._due(number)
            if wrong is not None and how == "malformed" and number == wrong.after:
                await wire.body(_NO_JSON)
                continue
            delta = {"content": word} if number else {"role": "assistant", "content": word}
            await wire.event(self._chunk(delta), drip=how == "drip")
            seen.first_token_at = seen.first_token_at or asyncio.get_running_loop().time()
            seen.words += 1
        if wrong is not None and ends:
            await self._due(len(spoken))
            await self._break_off(wire, wrong)
        else:
            await self._finish(wire)

    async def whole(self, seen: Seen, wire: Wire, wrong: Stream | None) -> None:
        """Send it when it is done."""
        await self._due(len(self._words))
        message = {"role": "assistant", "content": "".join(self._words)}
        choices = [{"index": 0, "message": message, "finish_reason": self._reason}]
        data = {**self._object(), "object": "chat.completion", "choices": choices, "usage": self._usage}
        encoded = json.dumps(data).encode()
        how = wrong.how if wrong is not None else None
        if wrong is not None and how in {"cut", "stalled"}:
            await wire.end_badly(wrong)
        elif how == "error":
            await wire.refuse(Refusal(500, problem(500, "Internal Server Error", "Inference connection error")))
        elif how in {"truncated", "malformed"}:
            await wire.whole(200, encoded[: len(encoded) // 2])
        else:
            await wire.whole(200, encoded)
            seen.words = len(self._words)

    async def _break_off(self, wire: Wire, wrong: Stream) -> None:
        if wrong.how == "error":
            # With a good end after it, as vLLM has it: whoever only waits for that takes the words for the answer.
            await wire.event({"error": {"message": "EngineCore encountered an issue", "code": 500}})
            await wire.body(_DONE, more=False)
        elif wrong.how == "truncated":
            await wire.body(b"", more=False)
        else:
            await wire.end_badly(wrong)

    async def _finish(self, wire: Wire) -> None:
        await wire.event(self._chunk({}, self._reason))
        if self._wants_usage:
            await wire.event({**self._object(), "choices": [], "usage": self._usage})
        await wire.body(_DONE, more=False)

    async def _due(self, number: int) -> None:
        """Wait for a word's moment, counted from the beginning, so that delays do not add up."""
        due = self._begun + self._first_token_s + number / self._tokens_per_s
        await asyncio.sleep(due - asyncio.get_running_loop().time())

    def _chunk(self, delta: Message, reason: str | None = None) -> Message:
        return {**self._object(), "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    def _object(self) -> Message:
        return {"id": "chat-1", "object": "chat.completion.chunk", "created": 1_800_000_000, "model": self._model}
