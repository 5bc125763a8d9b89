"""One running job: its prompt's slices, then its tokens, one by one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.engines.wire import Done, Submit
from agent.engines.worker.crops import Crops
from agent.engines.worker.facts import Facts
from agent.engines.worker.sampling import Options, Sampler
from agent.engines.worker.similar import Look
from agent.engines.worker.slots import ALIGN, Held, slice_end
from agent.engines.worker.stops import StopScanner
from agent.engines.worker.words import Words

if TYPE_CHECKING:  # see `agent.engines.worker.scheduler`
    from agent.engines.worker.model import Cache


def options(submit: Submit, facts: Facts) -> Options | None:
    """Return how the job's tokens are drawn, or None if the likeliest is always taken.

    What the job does not say is the model's own default. A job that gives a temperature, a top_p or a top_k
    wants its tokens drawn, whatever that default is; temperature 0, or a top_k of 1, is greedy.
    """
    named = (submit.temperature, submit.top_p, submit.top_k)
    if not facts.sampled and named == (None, None, None):
        return None
    own = facts.options
    drawn = Options(
        temperature=own.temperature if submit.temperature is None else submit.temperature,
        top_p=own.top_p if submit.top_p is None else submit.top_p,
        top_k=own.top_k if submit.top_k is None else submit.top_k,
        repetition_penalty=own.repetition_penalty,
    )
    return None if drawn.temperature == 0 or drawn.top_k == 1 else drawn


@dataclass(eq=False)
class Slot(Held):
    """A place for a job, and the cache that the last one left there, if any."""

    cache: "Cache | None" = None


class Task:
    """A job in its slot.

    Args:
        submit: the job as the parent gave it.
        prompt: its tokens.
        pictures: those that stand in it.
        answer_tokens: the most its answer may have.
        slot: where it runs, its cache rewound to ``kept`` tokens; its record is kept up to date here.
        kept: how many of the prompt's tokens are computed already.
        words: makes text of tokens.
        sampler: draws the tokens; None leaves the choice to the library.
        end: the tokens that end an answer.
        alone: whether the cache serves no other job.
        whole: whether the prompt must be computed in one call.
        look: what is to be remembered of its frame when it was looked at.

    Attributes:
        prompt: how many tokens its prompt has.
        unsent: text that waits to be sent with what comes next.
        sent_at: when text was sent last, by the scheduler's clock.
        image: how many of the prompt's tokens are pictures'.
        completion: how many tokens its answer has so far.
        prefill_s: how much of the worker's time its prompt has taken, from its tokens' making on, in seconds.
        decode_s: the same of its answer.

    """

    def __init__(
        self,
        submit: Submit,
        prompt: list[int],
        pictures: Sequence[Crops],
        *,
        answer_tokens: int,
        slot: Slot,
        kept: int,
        words: Words,
        sampler: Sampler | None,
        end: frozenset[int],
        alone: bool,
        whole: bool,
        look: Look | None = None,
    ) -> None:
        self.job = submit.job
        self.alone = alone
        self.look = look
        self.slot = slot
        self.prompt = len(prompt)
        # What must be computed before a token can be chosen: the prompt, and once more with the answer so far where
        # that reaches other rotary factors.
        self._given = prompt
        self._pictures = pictures
        self.image = sum(picture.tokens for picture in pictures)
        self._answer_tokens = answer_tokens
        self._kept = kept
        self._words = words
        self._sampler = sampler
        self._end = end
        self._whole = whole
        self._stops = StopScanner(submit.stop)
        self.unsent = ""
        self.sent_at = -math.inf
        # The last token, as long as it is chosen and not computed.
        self._undone: list[int] = []
        self.completion = 0
        self.prefill_s = 0.0
        self.decode_s = 0.0
        self._exact = kept <= slot.exact
        del slot.tokens[kept:]
        slot.exact = min(slot.exact, kept)

    def __repr__(self) -> str:
        return f"<Task {self.job}: {len(self.slot.tokens)}/{len(self._given)} given, {self.completion} answer>"

    @property
    def remaining(self) -> int:
        """How many tokens are still to be computed before the next can be chosen, if they come in slices."""
        return max(len(self._given) - len(self.slot.tokens), 0)

    def outgrows(self, switch: int | None) -> bool:
        """Whether its next token is the first that its cache's rotary factors are not for."""
        return not self.slot.long and bool(self._undone) and len(self.slot.tokens) == switch

    def begin_anew(self) -> None:
        """Have all tokens so far computed again, in the empty cache that the slot gets now."""
        self._given, self._undone, self._exact = [*self.slot.tokens, *self._undone], [], True

    @property
    def _cache(self) -> "Cache":
        if self.slot.cache is None:
            raise RuntimeError("a task runs in a slot without a cache")
        return self.slot.cache

    def prefill(self, size: int) -> int:
        """Compute a slice of about ``size`` tokens; return its length, or 0 if its time tells nothing of others'."""
        if self._pictures:
            self._prefill_pictures(size)
            return 0
        begin = len(self.slot.tokens)
        end = self._slice_end(begin, size)
        piece = self._given[begin:end]
        self._cache.append(piece)
        self.slot.tokens += piece
        if self._exact:
            self.slot.exact = end
        return len(piece)

    def _slice_end(self, begin: int, size: int) -> int:
        return len(self._given) if self._whole else slice_end(begin, len(self._given), size)

    def _prefill_pictures(self, size: int) -> None:
        """Compute all up to the last picture, which is one call, and a slice of what comes after it."""
        seen = max(at for at, token in enumerate(self._given, 1) if token < 0)
        end = self._slice_end(-(-seen // ALIGN) * ALIGN, size)
        self._cache.look(self._given[:end], self._pictures)
        self.slot.tokens += self._given[:end]
        self._pictures = ()

    def decode(self) -> tuple[str, Done | None]:
        """Generate a token; return the text that can be shown now, and the job's end if this was it."""
        token = self._next()
        self.completion += 1
        if token in self._end:
            return self._stops.flush(), self._done("stop")
        text = self._stops.feed(self._words.add(token))
        if self._stops.stopped:
            return text, self._done("stop")
        if self.completion == self._answer_tokens:
            return text + self._stops.flush(), self._done("length")
        return text, None

    def _next(self) -> int:
        """Choose the next token. It is computed, and counted as held, with the one after it."""
        if self._undone and self._sampler is not None:
            self._cache.append(self._undone)
        self.slot.tokens += self._undone
        if self._sampler is None:
            token = self._cache.generate()
        else:
            token = self._sampler.choose(self._cache.logits(), self.slot.tokens)
        self._undone = [token]
        return token

    def _done(self, reason: Literal["stop", "length"]) -> Done:
        return Done(self.job, reason, self.prompt, self.completion, self._kept, self.image)
