"""How much work a job is for one engine and its model, learned from every job that ran there."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import Field

from agent.contract.events import Usage
from agent.contract.jobs import Detail, Job, Strict
from agent.engines.base import Cost
from agent.forecast.hindsight import Error, Hindsight
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

# Far beyond any rate, and well within what floats can square.
_Positive: TypeAlias = Annotated[float, Field(ge=0, le=1e6)]


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
    lengths: tuple[Length, ...]
    ratios: tuple[Annotated[float, Field(gt=0, le=1e6)], ...]


class Estimator:
    """How much work jobs are for one engine.

    Args:
        default_max_tokens: the longest answer of a job that does not say.

    Attributes:
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
        self.load_s: float | None = None

    def __repr__(self) -> str:
        load = "" if self.load_s is None else f", loads in {self.load_s:.2f} s"
        return f"<Estimator prefill {self._prefill}, decode {self._decode}, {self._prompts}{load}, {self._hindsight}>"

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
        kind = self._kind(job)
        length = self._length(kind, 0, self._most(job))
        if not self._prefill.known or (length > 1 and not self._decode.known):
            return None
        tokens = self._tokens(job, kind)
        return Work(self._prefill.at(_prefill(tokens)), self._decode.at(_decode(tokens, 0, length)))

    def left(self, job: Job, progress: Progress) -> Work:
        """Predict how much work is left of a job that runs; none while nothing is measured."""
        kind, usage = self._kind(job), progress.usage
        tokens = _counted(usage) if usage.prompt_tokens else self._tokens(job, kind)
        have = usage.completion_tokens
        length = self._length(kind, have, self._most(job))
        prefill_s = 0.0
        if not progress.talks:
            whole_s = self._prefill.at(_prefill(tokens))
            prefill_s = max(whole_s - progress.since_started_s, _UNFINISHED * whole_s)
        return Work(prefill_s, self._decode.at(_decode(tokens, have, length)))

    def ran(self, job: Job, usage: Usage, cost: Cost | None) -> None:
        """Learn from a job that ended by itself; without a cost, only of its tokens."""
        key = job.client, job.camera
        kind = self._kinds.pop(key, None) or _Kind()
        # Put back at the end: the first is always the one that was not seen for longest.
        self._kinds[key] = kind
        if len(self._kinds) > _MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]
        if cost is not None:
            tokens = _counted(usage) if usage.prompt_tokens else self._tokens(job, kind)
            self._prefill.saw(_prefill(tokens), cost.prefill_s)
            self._decode.saw(_decode(tokens, 0, usage.completion_tokens), cost.decode_s)
        cut = usage.completion_tokens >= self._most(job)
        kind.add(usage, cut=cut)
        self._all.add(usage, cut=cut)
        if usage.prompt_tokens:
            self._prompts.counted(job, usage)

    def ended(self, predicted_s: float, real_s: float) -> None:
        """Learn how good a prediction was of how long a job would take to its end."""
        self._hindsight.ended(predicted_s, real_s)

    def loaded(self, load_s: float) -> None:
        """Learn how long the model took to load."""
        self.load_s = _mean(self.load_s, load_s)

    def dump(self) -> bytes:
        """Return what outlives the process, in less than 4 KB: the rates, and nothing of clients."""
        kept = _Kept(
            prefill=tuple(self._prefill.coefficients) if self._prefill.known else None,
            decode=tuple(self._decode.coefficients) if self._decode.known else None,
            prompt=tuple(self._prompts.coefficients),
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
        self._all = _Kind(Lengths(kept.lengths), kept.cached)
        self._hindsight = Hindsight(kept.ratios)
        self.load_s = kept.load_s

    def _kind(self, job: Job) -> _Kind:
        return self._kinds.get((job.client, job.camera), self._all)

    def _most(self, job: Job) -> int:
        return job.sampling.max_tokens or self._default_max_tokens

    def _length(self, kind: _Kind, have: int, most: int) -> float:
        """Predict an answer's length: as its kind's were, or all jobs', or as long as it may be."""
        for lengths in (kind.lengths, self._all.lengths):
            expected = lengths.expected(have, most)
            if expected is not None:
                return expected
        return most

    def _tokens(self, job: Job, kind: _Kind) -> Tokens:
        tokens = self._prompts.of(job)
        cached = self._all.cached if kind.cached is None else kind.cached
        # One token at least is computed, whose scores choose the first of the answer.
        return tokens._replace(cached=max(min(cached or 0.0, tokens.prompt - 1), 0.0))


def _counted(usage: Usage) -> Tokens:
    return Tokens(usage.prompt_tokens, usage.image_tokens, usage.cached_prompt_tokens)


def _prefill(tokens: Tokens) -> tuple[float, ...]:
    """Return what the seconds of a prompt are a linear function of."""
    new = tokens.prompt - tokens.cached
    return 1.0, new, new * (tokens.cached + tokens.prompt) / 2, min(tokens.image, new)


def _decode(tokens: Tokens, have: float, length: float) -> tuple[float, ...]:
    """Return what the seconds of an answer are a linear function of, from ``have`` tokens to ``length``."""
    new = max(length - max(have, 1.0), 0.0)
    return new, new * (tokens.prompt + (have + length) / 2)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + _NEW * (new - old)
