from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agent.engines.wire import Submit
from agent.engines.worker.facts import Facts
from agent.engines.worker.sampling import Options, Sampler
from agent.engines.worker.task import options

LOGITS = np.random.default_rng(0).normal(scale=3, size=2000).astype(np.float32)
BEST = [int(token) for token in np.argsort(-LOGITS)]
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum()


def drawn(seed: int | None = 1, times: int = 300, context: tuple[int, ...] = (), **named: Any) -> list[int]:
    sampler = Sampler(Options(**named), seed)
    return [sampler.choose(LOGITS, context) for _ in range(times)]


@pytest.mark.parametrize("named", [{}, {"top_k": 50}, {"top_p": 0.9}, {"top_p": 0.9, "top_k": 700}])
def test_a_seed_repeats_exactly(named: dict[str, Any]) -> None:
    assert drawn(seed=7, **named) == drawn(seed=7, **named)
    assert drawn(seed=7, **named) != drawn(seed=8, **named)


def test_top_k_draws_among_the_likeliest() -> None:
    assert set(drawn(top_k=5, temperature=2.0)) == set(BEST[:5])


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_top_p_draws_among_the_fewest_that_have_the_probability(top_p: float, temperature: float) -> None:
    weights = np.sort(np.exp(LOGITS.astype(np.float64) / temperature))[::-1]
    fewest = int(np.searchsorted(np.cumsum(weights) / weights.sum(), top_p)) + 1

    assert set(drawn(top_p=top_p, temperature=temperature)) <= set(BEST[:fewest])


def test_top_p_is_taken_of_what_top_k_left() -> None:
    weights = np.exp(LOGITS[BEST[:3]])
    first = float(weights[0] / weights.sum())

    assert set(drawn(top_k=3, top_p=first - 0.01)) == {BEST[0]}


def test_tokens_come_as_often_as_the_model_says() -> None:
    counts = Counter(drawn(times=4000))

    for token in BEST[:3]:
        expected = 4000 * PROBABILITIES[token]
        assert abs(counts[token] - expected) < 5 * expected**0.5


def test_repetition_penalty_makes_tokens_that_were_there_less_likely() -> None:
    assert BEST[0] in drawn(top_k=5)
    assert BEST[0] not in drawn(top_k=5, repetition_penalty=50.0, context=(BEST[0],))


def test_a_pictures_tokens_make_none_less_likely() -> None:
    assert BEST[0] in drawn(top_k=5, repetition_penalty=50.0, context=(BEST[0] - len(LOGITS),))


FACTS = Facts(8192, frozenset([2]), options=Options(temperature=0.7, top_k=50))


def test_a_job_that_says_nothing_is_greedy_unless_the_model_says_otherwise() -> None:
    assert options(Submit(1), FACTS) is None
    assert options(Submit(1), replace(FACTS, sampled=True)) == FACTS.options


def test_a_job_that_names_how_to_draw_has_its_tokens_drawn() -> None:
    assert options(Submit(1, temperature=0.2), FACTS) == Options(temperature=0.2, top_k=50)
    assert options(Submit(1, top_p=0.5), FACTS) == Options(temperature=0.7, top_p=0.5, top_k=50)


@pytest.mark.parametrize("submit", [Submit(1, temperature=0.0), Submit(1, top_k=1), Submit(1, seed=3)])
def test_temperature_0_or_a_top_k_of_1_or_a_seed_alone_is_greedy(submit: Submit) -> None:
    assert options(submit, FACTS) is None
