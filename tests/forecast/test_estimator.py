import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.events import Usage
from agent.contract.jobs import Job
from agent.engines.base import Cost
from agent.forecast import Estimator, Progress, Work
from agent.forecast.estimator import _MOST_KINDS
from tests.forecast.jobs import job, shown

# Seconds of a token, of the model in these tests, and of what comes before the first.
PREFILL_S, DECODE_S, FIXED_S = 0.002, 0.01, 0.02


def ran(estimator: Estimator, done: Job, answer: int = 50, *, cached: int = 0, slower: float = 1.0) -> Work:
    """Run a job of a token for each four bytes; return what it was."""
    prompt = 30 + sum(len(message.text) for message in done.messages) // 4
    work = Work(slower * (FIXED_S + PREFILL_S * (prompt - cached)), slower * DECODE_S * (answer - 1))
    estimator.ran(done, Usage(prompt, answer, cached), Cost(*work))
    return work


def trained(*, jobs: int = 40, slower: float = 1.0) -> Estimator:
    """Return one that has seen jobs of all sizes."""
    estimator, random = Estimator(100), Random(1)
    for _ in range(jobs):
        ran(estimator, job("x" * random.choice([20, 100, 400, 1600, 6000])), random.randint(2, 99), slower=slower)
    return estimator


def test_before_the_first_job_it_predicts_nothing() -> None:
    estimator = Estimator(100)

    assert estimator.work(job()) is None
    assert estimator.left(job(), Progress(Usage(), 0.0, talks=False)) == (0, 0)


def test_after_the_first_job_the_same_again_is_predicted() -> None:
    estimator = Estimator(100)
    work = ran(estimator, job("x" * 400))

    assert estimator.work(job("x" * 400)) == pytest.approx(work, rel=0.1)


def test_after_a_job_that_had_one_token_only_another_such_is_predicted() -> None:
    estimator = Estimator(100)
    ran(estimator, job(most=1), answer=1)

    assert estimator.work(job(most=1)) is not None
    assert estimator.work(job(most=2, client="other")) is None


@pytest.mark.parametrize("size", [40, 1000, 10_000])
def test_a_job_of_any_size_is_predicted_when_jobs_of_several_were_seen(size: int) -> None:
    estimator = trained()
    for _ in range(10):
        ran(estimator, job(client="d"), answer=20)
    work = estimator.work(job("x" * size, client="d"))

    assert work == pytest.approx((FIXED_S + PREFILL_S * (30 + size / 4), DECODE_S * 19), rel=0.1)


@pytest.mark.parametrize("slower", [0.5, 1.3, 3.0])
def test_a_box_that_becomes_slower_or_faster_is_followed_within_ten_jobs(slower: float) -> None:
    estimator = trained()
    for _ in range(10):
        work = ran(estimator, job("x" * 400, client="d"), slower=slower)

    assert estimator.work(job("x" * 400, client="d")) == pytest.approx(work, rel=0.1)


def test_one_job_during_which_the_box_was_swapped_out_changes_little() -> None:
    estimator = trained()
    work = ran(estimator, job("x" * 400, client="d"))
    ran(estimator, job("x" * 400, client="d"), slower=100)

    assert estimator.work(job("x" * 400, client="d")) == pytest.approx(work, rel=0.2)


def test_an_answer_is_as_long_as_those_of_its_kind_and_not_as_others() -> None:
    estimator = trained()
    for _ in range(10):
        ran(estimator, job(camera="porch"), answer=5)
        ran(estimator, job(camera="gate"), answer=80)

    porch, gate = estimator.work(job(camera="porch")), estimator.work(job(camera="gate"))
    assert porch is not None
    assert gate is not None
    assert porch.decode_s == pytest.approx(4 * DECODE_S, rel=0.1)
    assert gate.decode_s == pytest.approx(79 * DECODE_S, rel=0.1)


def test_an_answer_is_never_longer_than_it_may_be() -> None:
    work = trained().work(job(most=3))

    assert work is not None
    assert work.decode_s <= 2 * DECODE_S * 1.1


def test_what_a_kind_has_in_common_is_taken_to_be_cached_again() -> None:
    estimator = trained()
    for _ in range(10):
        ran(estimator, job("x" * 4000, client="fleet"), cached=1000)
    work = estimator.work(job("x" * 4400, client="fleet"))

    assert work is not None
    assert work.prefill_s == pytest.approx(FIXED_S + 130 * PREFILL_S, rel=0.2)


def test_a_pictures_tokens_may_cost_more_than_the_texts() -> None:
    estimator = trained()
    for _ in range(10):
        usage = Usage(prompt_tokens=350, completion_tokens=10, image_tokens=313)
        estimator.ran(
            shown("low", client="d"), usage, Cost(FIXED_S + 37 * PREFILL_S + 313 * 5 * PREFILL_S, 9 * DECODE_S)
        )
    work = estimator.work(shown("low", "low", client="d"))

    assert work is not None
    assert work.prefill_s == pytest.approx(626 * 5 * PREFILL_S, rel=0.2)


def test_of_an_endpoint_elsewhere_the_time_to_the_first_token_is_learned() -> None:
    estimator, random = Estimator(100), Random(1)
    for _ in range(30):
        answer = random.randint(2, 99)
        asked = job("x" * random.choice([20, 400, 6000]))
        estimator.ran(asked, Usage(completion_tokens=answer), Cost(0.3, (answer - 1) * 0.005))

    for size in (20, 6000):
        work = estimator.work(job("x" * size))
        assert work is not None
        assert work.prefill_s == pytest.approx(0.3, rel=0.1)


def test_a_running_jobs_prompt_is_done_with_its_first_word_and_its_answer_goes_on() -> None:
    estimator = trained()
    for _ in range(10):
        ran(estimator, job(client="d"), answer=50)
    left = estimator.left(job(client="d"), Progress(Usage(30, 20), since_started_s=9.0, talks=True))

    assert left == pytest.approx((0, 30 * DECODE_S), rel=0.1)


def test_a_prompt_that_is_late_is_not_taken_to_be_done() -> None:
    estimator = trained()
    early = estimator.left(job(), Progress(Usage(1030), since_started_s=0.5, talks=False))
    late = estimator.left(job(), Progress(Usage(1030), since_started_s=9.0, talks=False))

    assert early.prefill_s == pytest.approx(FIXED_S + 1030 * PREFILL_S - 0.5, rel=0.1)
    assert 0 < late.prefill_s < early.prefill_s


def test_what_the_engine_has_counted_counts_and_not_what_was_guessed() -> None:
    estimator = trained()
    left = estimator.left(job("x"), Progress(Usage(1030, 0, 1000), since_started_s=0.0, talks=False))

    assert left.prefill_s == pytest.approx(FIXED_S + 30 * PREFILL_S, rel=0.2)


def test_a_job_without_a_cost_teaches_no_rate() -> None:
    estimator = trained()
    before = estimator.work(job(client="d"))
    for cost in (None, Cost(0, 0)):
        estimator.ran(job(), Usage(30, 99), cost)
    after = estimator.work(job(client="d"))

    assert before is not None
    assert after is not None
    assert after.prefill_s == pytest.approx(before.prefill_s, rel=0.01)


def test_however_many_names_are_made_up_a_bounded_number_is_remembered_the_last_ones() -> None:
    estimator = trained()
    for number in range(_MOST_KINDS + 10):
        ran(estimator, job(camera=f"camera{number}"), answer=5)

    assert len(estimator._kinds) == _MOST_KINDS
    assert ("c", None) not in estimator._kinds
    assert ("c", f"camera{_MOST_KINDS}") in estimator._kinds


def test_the_next_process_goes_on_from_what_was_learned() -> None:
    estimator = trained()
    estimator.loaded(6.0)
    for _ in range(64):
        estimator.ended(1.0, 1.5)
    other = Estimator(100)
    other.load(estimator.dump())

    unknown = job("x" * 1000, client="new")
    assert other.work(unknown) == pytest.approx(estimator.work(unknown))
    assert (other.slack, other.load_s) == (1.5, 6.0)
    assert other.dump() == estimator.dump()


def test_what_is_kept_is_small_and_says_nothing_of_clients() -> None:
    estimator = Estimator(100)
    for number in range(200):
        ran(estimator, job("x" * 9, client=f"client{number}", camera="porch"), answer=10_000 + number)
        estimator.ended(1 / 3, number / 7)
    kept = estimator.dump()

    assert len(kept) < 4096
    assert b"client" not in kept
    assert b"porch" not in kept


@given(st.binary())
def test_garbage_is_left_alone(data: bytes) -> None:
    estimator = trained(jobs=3)
    before = estimator.dump()
    estimator.load(data)

    assert estimator.dump() == before


@pytest.mark.parametrize(
    "change",
    [
        {"v": 0},
        {"v": 2},
        {"prefill": [1.0]},
        {"prefill": [-1.0, 1.0, 1.0, 1.0]},
        {"prefill": [1e300, 1.0, 1.0, 1.0]},
        {"decode": "fast"},
        {"pictures": {"huge": 1.0}},
        {"lengths": [[1]]},
        {"ratios": [0.0]},
        {"new": 1},
    ],
)
def test_a_dump_that_this_version_would_not_have_made_is_left_alone(change: dict[str, object]) -> None:
    data = json.dumps({**json.loads(trained().dump()), **change}).encode()
    estimator = Estimator(100)
    estimator.load(data)

    assert estimator.work(job()) is None


def test_how_long_the_model_takes_to_load_follows_the_last_loads() -> None:
    estimator = Estimator(100)
    estimator.loaded(2.0)
    assert estimator.load_s == 2.0
    for _ in range(10):
        estimator.loaded(10.0)

    assert estimator.load_s == pytest.approx(10.0, rel=0.05)


def test_it_tells_how_far_its_predictions_were_off() -> None:
    estimator = Estimator(100)
    assert estimator.error is None
    estimator.ended(1.0, 2.0)

    assert estimator.error == (0.5, 0.5)


def test_it_shows_its_rates() -> None:
    estimator = trained()
    estimator.loaded(6.0)

    assert "decode <Line 0.0" in repr(estimator)
    assert "loads in 6.00 s" in repr(estimator)
