"""Choosing the next token from the model's logits.

Search options belong to a Generator from its creation on, and so does its random state. A cache that outlives
its job (see `agent.engines.worker.slots`) would hand the first job's temperature and half-spent randomness to
the second, so jobs that want chance draw here. What is drawn depends on the seed and the logits alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Logits: TypeAlias = NDArray[np.float32]

# A nucleus rarely has more tokens than this, and finding so many is ten times cheaper than sorting a vocabulary.
_NUCLEUS = 512


@dataclass(frozen=True, slots=True)
class Options:
    """How tokens are drawn.

    Attributes:
        temperature: over 0.
        top_p: draw among the likeliest tokens that together have this probability.
        top_k: draw among so many of the likeliest; 0 for all.
        repetition_penalty: over 1 makes tokens that were there before less likely.

    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


class Sampler:
    """Draws tokens by ``options``; with the same ``seed`` and the same logits, the same tokens."""

    def __init__(self, options: Options, seed: int | None) -> None:
        self._options = options
        self._random = np.random.default_rng(seed)

    def choose(self, logits: Logits, context: Sequence[int]) -> int:
        """Return the next token.

        Args:
            logits: one score a token of the vocabulary, unnormalised.
            context: the tokens before it, prompt and answer.

        """
        options = self._options
        if options.repetition_penalty != 1.0:
            logits = _penalised(logits, context, options.repetition_penalty)
        tokens, weights = _likeliest(logits, options)
        sums = np.cumsum(weights)
        return int(tokens[np.searchsorted(sums, self._random.random() * sums[-1], side="right")])


def _penalised(logits: Logits, context: Sequence[int], penalty: float) -> Logits:
    """Divide positive scores of tokens in ``context`` and multiply negative ones (CTRL, arXiv:1909.05858)."""
    seen = np.unique(np.asarray(context))
    seen = seen[seen >= 0]  # a picture's tokens are below
    logits = logits.copy()
    logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    return logits


def _likeliest(logits: Logits, options: Options) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the tokens to draw among, and their weights; likeliest first where a limit asked for an order."""
    every = len(logits)
    limit = min(options.top_k or every, every)
    if limit == every and options.top_p >= 1:
        return np.arange(every), _weights(logits, logits.max(), options.temperature)
    # The first count is a guess that is nearly always enough; only without top_k is there more than one.
    for count in (_NUCLEUS, every) if limit == every > _NUCLEUS else (limit,):
        tokens = np.argpartition(logits, every - count)[every - count :]
        tokens = tokens[np.argsort(-logits[tokens], kind="stable")]
        weights = _weights(logits[tokens], logits[tokens[0]], options.temperature)
        rest = weights if count == limit else _weights(logits, logits[tokens[0]], options.temperature)
        inside = int(np.searchsorted(np.cumsum(weights), options.top_p * rest.sum())) + 1
        if inside <= count:
            return tokens[:inside], weights[:inside]
    return tokens, weights


def _weights(logits: Logits, highest: np.float32, temperature: float) -> NDArray[np.float64]:
    scores = (logits - highest).astype(np.float64) / temperature
    return np.asarray(np.exp(scores))
