"""How many tokens a prompt has, for those who have no tokenizer."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agent.contract.events import Usage
from agent.contract.jobs import Detail, Job
from agent.forecast.line import Line

# The template's own tokens, each turn's, and each byte's. Bytes say more than characters: where a token has fewer
# characters, these have more bytes.
_SCALES = (20.0, 5.0, 0.25)
_START = (0.0, 5.0, 0.25)
# Of a picture until some were seen: Phi-3.5-vision's tokens for the crops of a square one.
_PICTURE: dict[Detail, float] = {"low": 313.0, "auto": 757.0, "high": 2509.0}
# A new picture counts so much: those of other cameras may have another shape.
_NEW = 0.3


class Tokens(NamedTuple):
    """What a prompt is made of; ``cached`` tokens, of all, need no computing."""

    prompt: float
    image: float
    cached: float = 0.0


class Prompts:
    """How many tokens prompts have for one model, fitted by every prompt that it has counted.

    Args:
        coefficients: what `coefficients` was, to go on from there.
        pictures: what `pictures` was.

    """

    def __init__(
        self, coefficients: Sequence[float] | None = None, pictures: Mapping[Detail, float] | None = None
    ) -> None:
        self._text = Line(_SCALES, coefficients or _START)
        self.pictures = dict(pictures or _PICTURE)

    def __repr__(self) -> str:
        return f"<Prompts {self._text}>"

    @property
    def coefficients(self) -> list[float]:
        """Tokens of the template, of a turn, of a byte."""
        return self._text.coefficients

    def of(self, job: Job) -> Tokens:
        """Predict a job's tokens, as if none were cached."""
        image = sum(self.pictures[detail] for detail in job.details)
        return Tokens(self._text.at((1.0, *job.text_size)) + image, image)

    def counted(self, job: Job, usage: Usage) -> None:
        """Learn from what the model has counted."""
        details = job.details
        if len(set(details)) == 1 and usage.image_tokens:
            each = usage.image_tokens / len(details)
            self.pictures[details[0]] += _NEW * (each - self.pictures[details[0]])
        if usage.image_tokens or not details:  # an endpoint elsewhere does not say which tokens are its pictures'
            self._text.saw((1.0, *job.text_size), usage.prompt_tokens - usage.image_tokens)
