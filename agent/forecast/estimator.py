"""How much work a job is for one engine and its model, learned from every job that ran there."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from itertools import starmap
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import Field

from agent.contract.events import Usage
from agent.contract.jobs import Detail, Job, Strict
from agent.engines.base import Cost
from agent.forecast.hindsight import LEAST, MOST, Error, Hindsight
from agent.forecast.lengths import Length, Lengths
from agent.forecast.line import Line
from agent.forecast.prompts import Prompts, Tokens
from agent.forecast.work import Work

# Seconds of a prompt: what each job costs before its first token is computed (on an endpoint elsewhere, nearly all),
# each token, each token's attention to those before it, and what a picture's token costs beyond that, in its tower.
_PREFILL = (50.0, 1.0, 1 / 2000, 1.0)
# Seconds of an answer: each token but the first, which comes with the prompt, and its attention to those before it:
# 9.8 ms a token behind 30 others, 18 behind 1,400 (SmolLM2-135M, two cores).
_DECODE = (1.0, 1 / 2000)
# Clients make up the names of cameras, so what is remembered of them needs a bound.
_MOST_KINDS = 1024
# So much counts a new job in a mean.
_NEW = 0.3
# A prompt that takes longer than predicted has this share of it left, until its first word says otherwise.
_UNFINISHED = 0.1

# A single one of our jobs may have met a swap or a backup. If rates have changed by more than this, the next shows it.
_FARTHEST = 5.0
# No model has such a window.
_MOST_TOKENS = 10**7
_UNKNOWN = Usage()

# Far beyond any rate, and well within what floats can square.
_BOUND = 1e7
_Positive: TypeAlias = Annotated[float, Field(ge=0, le=_BOUND)]
_Count: TypeAlias = Annotated[int, Field(ge=0, le=_MOST_TOKENS)]


class Progress(NamedTuple):
    """How far a running job is.

    Attributes:
        usage: its tokens, as far as the engine has told; zeros until then.
        since_started_s: how long ago the engine took it up, in seconds.
        talks: whether its first word is there, so that its prompt is done.

    """

    usage: Usage
    since_started_s: float
    talks: bool


@dataclass(slots=True)
class _Kind:
    """What is remembered of the jobs of one client, or of one of its cameras.

    Of a prompt it is the count of tokens that were cached, and not their share: they are a beginning that many jobs
    have in common, such as a system prompt, whatever comes after it.
    """

    lengths: Lengths = field(default_factory=Lengths)
    cached: float | None = None

    def add(self, usage: Usage, *, cut: bool) -> None:
        self.lengths.add(usage.completion_tokens, cut=cut)
        if usage.prompt_tokens:
            self.cached = _mean(self.cached, usage.cached_prompt_tokens)


class _Kept(Strict):
    """What of an estimator outlives its process: nothing of clients."""

    v: Literal[1] = 1
    prefill: Annotated[tuple[_Positive, ...], Field(min_length=len(_PREFILL), max_length=len(_PREFILL))] | None
    decode: Annotated[tuple[_Positive, ...], Field(min_length=len(_DECODE), max_length=len(_DECODE))] | None
    prompt: Annotated[tuple[_Positive, ...], Field(min_length=3, max_length=3)]
    pictures: dict[Detail, _Positive]
    cached: _Positive | None
    load_s: _Positive | None
    lengths: tuple[tuple[_Count, bool], ...]
    ratios: tuple[Annotated[float, Field(ge=LEAST, le=MOST)], ...]


class Estimator:
    """How much work jobs are for one engine.

    Args:
        default_max_tokens: the longest answer of a job that does not say.

    Attributes:
        context: the model's window in tokens; 0 while it is not known.
        load_s: how long the model takes to load, in seconds; None while it was not seen.

    """

    def __init__(self, default_max_tokens: int) -> None:
        self._default_max_tokens = default_max_tokens
        self._prefill = Line(_PREFILL)
        self._decode = Line(_DECODE)
        self._prompts = Prompts()
        self._all = _Kind()
        self._kinds: dict[tuple[str, str | None], _Kind] = {}
        self._hindsight = Hindsight()
        self.context = 0
        self.load_s: float | None = None

    def __repr__(self) -> str:
        load = "" if self.load_s is None else f", loads in {self.load_s:.2f} s"
        return f"<Estimator prefill {self._prefill}, decode {self._decode}, {self._prompts}{load}, {self._hindsight}>"

    @property
    def known(self) -> bool:
        """Whether anything was measured; if not, nothing can be predicted."""
        return self._prefill.known

    @property
    def slack(self) -> float:
        """By what factor nine in ten real durations exceed the predicted ones at most; at least 1."""
        return self._hindsight.slack

    @property
    def error(self) -> Error | None:
        """How far predictions were off, as a share of the real duration; None while there were none."""
        return self._hindsight.error

    def work(self, job: Job) -> Work | None:
        """Predict how much work a job is; None while nothing is measured."""
        if not self.known:
            return None
        tokens = self._tokens(job)
        length = self._length(job, 0, self._most(job, tokens))
        if length is None:
            return None
        return Work(self._prefill.at(_prefill(tokens)), self._decode.at(_decode(tokens, 0, length)))

    def left(self, job: Job, progress: Progress) -> Work:
        """Predict how much work is left of a job that runs; none while nothing is measured."""
        usage = progress.usage if _possible(progress.usage) else _UNKNOWN
        tokens, have = self._tokens(job, usage), usage.completion_tokens
        most = self._most(job, tokens)
        length = self._length(job, have, most)
        if length is None:
            # It is longer than any before it: as much again as it has. Nothing says that it will be as long as it may.
            length = min(2 * have, most)
        prefill_s = 0.0
        if not progress.talks:
            whole_s = self._prefill.at(_prefill(tokens))
            prefill_s = max(whole_s - progress.since_started_s, _UNFINISHED * whole_s)
        return Work(prefill_s, self._decode.at(_decode(tokens, have, length)))

    def ran(self, job: Job, usage: Usage, cost: Cost) -> None:
        """Learn from a job that ended by itself."""
        if not _possible(usage):
            return
        tokens = self._tokens(job, usage)
        self._prefill.saw(_prefill(tokens), cost.prefill_s)
        self._decode.saw(_decode(tokens, 0, usage.completion_tokens), cost.decode_s)
        cut = usage.completion_tokens >= self._most(job, tokens)
        self._remembered(job).add(usage, cut=cut)
        self._all.add(usage, cut=cut)
        if usage.prompt_tokens:
            self._prompts.counted(job, usage)

    def broke_off(self, job: Job, usage: Usage, prefill_s: float, decode_s: float | None) -> None:
        """Learn from a job that ran alone until it was out of time.

        Jobs that are too slow are the ones that break off: who learns only from the others never sees that all are.

        Args:
            job: it.
            usage: its tokens, as far as the engine has told.
            prefill_s: how long its prompt took; if it has not said a word, how long it has taken so far.
            decode_s: how long it has talked; None if it has not said a word.

        """
        if not _possible(usage):
            return
        tokens, have = self._tokens(job, usage), max(usage.completion_tokens, 1)
        prompt = _prefill(tokens)
        if decode_s is None:
            if prefill_s > self._prefill.at(prompt):
                self._prefill.saw(prompt, prefill_s)
            return
        self._prefill.saw(prompt, prefill_s)
        told, next_one = _decode(tokens, 0, have), _decode(tokens, 0, have + 1)
        if decode_s > self._decode.at(next_one):  # which was still to come
            self._decode.saw(next_one, decode_s)
        elif decode_s < self._decode.at(told):
            self._decode.saw(told, decode_s)
        if have > (self._length(job, 0, self._most(job, tokens)) or 0):
            self._remembered(job).lengths.add(have, cut=True)

    def practised(self, job: Job, usage: Usage, cost: Cost) -> float:
        """Learn from a job of ours how fast the engine has become; in all else it is not as clients' jobs are.

        Return how many times longer it took than predicted; 1 if nothing was known.
        """
        if not _possible(usage):
            return 1.0
        tokens = self._tokens(job, usage)
        prompt, answer = _prefill(tokens), _decode(tokens, 0, usage.completion_tokens)
        predicted_s, real_s = self._prefill.at(prompt) + self._decode.at(answer), cost.prefill_s + cost.decode_s
        known = self._prefill.known and self._decode.known
        # Whatever slows a box down, heat or another process, slows down all of it.
        self._prefill.scale(prompt, cost.prefill_s, _FARTHEST)
        self._decode.scale(answer, cost.decode_s, _FARTHEST)
        return real_s / predicted_s if known and predicted_s > 0 < real_s else 1.0

    def ended(self, predicted_s: float, real_s: float) -> None:
        """Learn how good a prediction was of how long a job would take to its end."""
        self._hindsight.ended(predicted_s, real_s)

    def loaded(self, load_s: float) -> None:
        """Learn how long the model took to load."""
        if 0 <= load_s <= _BOUND:
            self.load_s = _mean(self.load_s, load_s)

    def dump(self) -> bytes:
        """Return what outlives the process, in less than 4 KB: the rates, and nothing of clients."""
        kept = _Kept(
            prefill=_bounded(self._prefill.coefficients) if self._prefill.known else None,
            decode=_bounded(self._decode.coefficients) if self._decode.known else None,
            prompt=_bounded(self._prompts.coefficients),
            pictures=self._prompts.pictures,
            cached=self._all.cached,
            load_s=self.load_s,
            lengths=tuple(self._all.lengths.last),
            ratios=tuple(self._hindsight.ratios),
        )
        return kept.model_dump_json().encode()

    def load(self, data: bytes) -> None:
        """Go on from what `dump` returned. What this version cannot read leaves all as it is."""
        try:
            kept = _Kept.model_validate_json(data)
        except ValueError:
            return
        self._prefill = Line(_PREFILL, kept.prefill)
        self._decode = Line(_DECODE, kept.decode)
        self._prompts = Prompts(kept.prompt, {**self._prompts.pictures, **kept.pictures})
        self._all = _Kind(Lengths(starmap(Length, kept.lengths)), kept.cached)
        self._hindsight = Hindsight(kept.ratios)
        self.load_s = kept.load_s

    def _kind(self, job: Job) -> _Kind:
        return self._kinds.get((job.client, job.camera), self._all)

    def _remembered(self, job: Job) -> _Kind:
        """Return what is remembered of a job's kind, from now on if nothing is."""
        key = job.client, job.camera
        kind = self._kinds.pop(key, None) or _Kind()
        # Put back at the end: the first is always the one that was not seen for longest.
        self._kinds[key] = kind
        if len(self._kinds) > _MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]
        return kind

    def _most(self, job: Job, tokens: Tokens) -> float:
        """Return how long a job's answer may be, by what it asks for and by what the window leaves."""
        asked = job.sampling.max_tokens or self._default_max_tokens
        return min(asked, self.context - tokens.prompt) if self.context else asked

    def _length(self, job: Job, have: int, most: float) -> float | None:
        """Predict an answer's length: as its kind's were, or all jobs'; None if none was longer than it is."""
        for lengths in (self._kind(job).lengths, self._all.lengths):
            expected = lengths.expected(have, most)
            if expected is not None:
                return expected
        return None

    def _tokens(self, job: Job, usage: Usage = _UNKNOWN) -> Tokens:
        """Return what a job's prompt is made of: as the engine has counted, else as predicted."""
        if usage.prompt_tokens:
            prompt = usage.prompt_tokens
            return Tokens(prompt, usage.image_tokens, min(usage.cached_prompt_tokens, prompt))
        tokens, kind = self._prompts.of(job), self._kind(job)
        cached = self._all.cached if kind.cached is None else kind.cached
        # One token at least is computed, whose scores choose the first of the answer.
        return tokens._replace(cached=max(min(cached or 0.0, tokens.prompt - 1), 0.0))


def _possible(usage: Usage) -> bool:
    """Tell whether a model can have counted so: an endpoint elsewhere may say anything."""
    return all(0 <= count <= _MOST_TOKENS for count in astuple(usage))


def _prefill(tokens: Tokens) -> tuple[float, ...]:
    """Return what the seconds of a prompt are a linear function of."""
    new = tokens.prompt - tokens.cached
    return 1.0, new, new * (tokens.cached + tokens.prompt) / 2, min(tokens.image, new)


def _decode(tokens: Tokens, have: float, length: float) -> tuple[float, ...]:
    """Return what the seconds of an answer are a linear function of, from ``have`` tokens to ``length``."""
    new = max(length - max(have, 1.0), 0.0)
    return new, new * (tokens.prompt + (have + length) / 2)


def _bounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(min(each, _BOUND) for each in values)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + _NEW * (new - old)
