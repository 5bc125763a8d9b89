import json
from random import Random

import pytest
from hypothesis import example, given
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


def practice(slower: float = 1.0, cached: int = 0) -> tuple[Job, Usage, Cost]:
    """Return a job of ours that ran, as the estimator is told of it."""
    cost = Cost(slower * (FIXED_S + PREFILL_S * (64 - cached)), slower * DECODE_S * 15)
    return job(client="edge-slm", most=16), Usage(64, 16, cached), cost


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


def test_answers_that_were_all_cut_short_do_not_make_anothers_as_long_as_it_may_be() -> None:
    estimator = Estimator(512)
    for _ in range(40):
        ran(estimator, job(client="camera", most=16), answer=16)
    before = estimator.work(job(client="d"))
    ran(estimator, job(client="d"), answer=50)
    after = estimator.work(job(client="d"))

    assert before is not None
    assert after is not None
    assert before.decode_s == pytest.approx(15 * DECODE_S, rel=0.1)
    assert after.decode_s == pytest.approx(49 * DECODE_S, rel=0.1)


def test_a_running_job_that_is_longer_than_all_before_it_has_as_much_again_to_come() -> None:
    estimator = trained()
    left = estimator.left(job(most=1_000_000), Progress(Usage(30, 200), since_started_s=9.0, talks=True))

    assert left == pytest.approx((0, 200 * DECODE_S), rel=0.1)


def test_an_endpoint_that_has_more_cached_than_there_is_has_nothing_left_to_do() -> None:
    left = trained().left(job(), Progress(Usage(30, 0, 1000), since_started_s=0.0, talks=False))

    assert left.prefill_s == pytest.approx(FIXED_S, rel=0.1)


def test_where_the_window_is_known_an_answer_is_no_longer_than_what_is_left_of_it() -> None:
    estimator = trained()
    estimator.context = 1050
    left = estimator.left(job(most=1_000_000), Progress(Usage(1030, 0), since_started_s=9.0, talks=True))
    full = estimator.left(job(most=1_000_000), Progress(Usage(1030, 20), since_started_s=9.0, talks=True))

    assert left.decode_s == pytest.approx(19 * DECODE_S, rel=0.1)
    assert full.decode_s == 0


def test_an_answer_that_the_window_cut_short_is_not_taken_to_be_whole() -> None:
    estimator = Estimator(512)
    estimator.context = 2030
    for answer in (50, 30):
        ran(estimator, job("x" * 8000 if answer == 30 else "x"), answer)
    work = estimator.work(job())

    assert work is not None
    assert work.decode_s == pytest.approx(49 * DECODE_S, rel=0.1)


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


def test_a_job_of_no_cost_teaches_no_rate() -> None:
    estimator = trained()
    before = estimator.work(job(client="d"))
    estimator.ran(job(), Usage(30, 99), Cost(0, 0))
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


@pytest.mark.parametrize("slower", [0.25, 1.0, 4.0])
def test_one_practice_shows_how_fast_jobs_of_all_sizes_have_become(slower: float) -> None:
    estimator = trained()
    sizes = [job("x" * size, client="d") for size in (20, 400, 6000)]
    before = [estimator.work(each) for each in sizes]
    ratio = estimator.practised(*practice(slower))

    assert ratio == pytest.approx(slower, rel=0.1)
    for each, old in zip(sizes, before, strict=True):
        assert old is not None
        assert estimator.work(each) == pytest.approx((slower * old.prefill_s, slower * old.decode_s), rel=0.1)


def test_practice_teaches_nothing_but_rates() -> None:
    estimator = trained()
    estimator.ended(1.0, 1.2)
    before = json.loads(estimator.dump())
    for _ in range(100):
        estimator.practised(*practice(cached=56))
    after = json.loads(estimator.dump())

    assert {name for name in before if before[name] != after[name]} <= {"prefill", "decode"}
    assert ("edge-slm", None) not in estimator._kinds


def test_however_often_it_practises_a_box_that_is_as_fast_as_it_was_is_known_as_well_as_before() -> None:
    estimator = trained()
    before = estimator.work(job("x" * 6000))
    for _ in range(100):
        ratio = estimator.practised(*practice(cached=56))

    assert ratio == pytest.approx(1.0)
    assert estimator.work(job("x" * 6000)) == pytest.approx(before, rel=0.1)


def test_practice_alone_foretells_nothing_of_jobs_whose_answers_nobody_knows() -> None:
    estimator = Estimator(512)
    ratio = estimator.practised(*practice())
    assert estimator.work(job()) is None
    ran(estimator, job())

    assert ratio == 1.0
    assert estimator.work(job()) is not None


def test_a_box_that_is_too_slow_for_any_job_to_end_is_known_for_it_after_a_few() -> None:
    estimator = trained()
    work = ran(estimator, job("x" * 400, client="d"))
    for _ in range(5):
        estimator.broke_off(job("x" * 400, client="d"), Usage(130, 20), 4 * work.prefill_s, 20 * 4 * DECODE_S)

    assert estimator.work(job("x" * 400, client="d")) == pytest.approx((4 * work.prefill_s, 4 * work.decode_s), rel=0.2)


def test_a_box_that_has_become_faster_shows_it_by_jobs_that_broke_off_too() -> None:
    estimator = trained(slower=4)
    for _ in range(10):
        estimator.broke_off(job(client="d"), Usage(30, 90), FIXED_S + 30 * PREFILL_S, 89 * DECODE_S)

    assert estimator.work(job(client="d")) == pytest.approx((FIXED_S + 30 * PREFILL_S, 89 * DECODE_S), rel=0.2)


def test_a_token_that_never_came_shows_that_answers_are_slow() -> None:
    estimator = trained()
    ran(estimator, job(client="d"), answer=50)
    for _ in range(5):
        estimator.broke_off(job(client="d"), Usage(30, 1), FIXED_S + 30 * PREFILL_S, 10 * DECODE_S)
    work = estimator.work(job(client="d"))

    assert work is not None
    assert work.decode_s > 5 * 49 * DECODE_S


@pytest.mark.parametrize("had", [0.5, 4.0])
def test_a_prompt_that_was_not_done_took_at_least_what_it_had(had: float) -> None:
    estimator = trained()
    before = estimator.work(job())
    for _ in range(5):
        estimator.broke_off(job(), Usage(30), had * (FIXED_S + 30 * PREFILL_S), None)
    after = estimator.work(job())

    assert before is not None
    assert after is not None
    assert after == pytest.approx((max(had, 1.0) * before.prefill_s, before.decode_s), rel=0.2)


def test_an_answer_that_broke_off_is_noted_if_it_is_longer_than_was_foreseen() -> None:
    estimator = trained()
    for _ in range(10):
        ran(estimator, job(client="short"), answer=20)
        ran(estimator, job(client="long"), answer=20)
    for _ in range(32):
        estimator.broke_off(job(client="short"), Usage(30, 5), FIXED_S + 30 * PREFILL_S, 5 * DECODE_S)
        estimator.broke_off(job(client="long"), Usage(30, 90), FIXED_S + 30 * PREFILL_S, 90 * DECODE_S)
    short, long = estimator.work(job(client="short")), estimator.work(job(client="long"))

    assert short is not None
    assert long is not None
    assert short.decode_s == pytest.approx(19 * DECODE_S, rel=0.1)
    assert long.decode_s == pytest.approx(89 * DECODE_S, rel=0.1)


counts = st.integers(-1, 2000) | st.sampled_from([10**6, 10**7, 10**9, 10**400])
seconds = st.floats() | st.sampled_from([1e-300, 1e8, 1e9])
usages = st.builds(Usage, counts, counts, counts, counts)


@given(st.lists(st.tuples(usages, seconds, seconds), max_size=3))
@example([(Usage(30, 2), 1e8, 1e8)])
def test_whatever_an_engine_says_is_survived_and_can_be_kept(said: list[tuple[Usage, float, float]]) -> None:
    estimator = Estimator(512)
    for usage, one_s, other_s in said:
        estimator.ran(shown("low"), usage, Cost(one_s, other_s))
        estimator.broke_off(job(), usage, one_s, other_s)
        estimator.broke_off(job(), usage, one_s, None)
        estimator.practised(job(), usage, Cost(one_s, other_s))
        estimator.ended(one_s, other_s)
        estimator.loaded(one_s)
        estimator.left(job(), Progress(usage, since_started_s=1.0, talks=False))
    estimator.loaded(2.0)
    other = Estimator(512)
    other.load(estimator.dump())

    assert other.load_s == estimator.load_s
    assert all(0 <= each < float("inf") for each in other.work(job()) or ())


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
        {"lengths": [[10**400, True]]},
        {"lengths": [[-1, True]]},
        {"ratios": [0.0]},
        {"ratios": [1e-300]},
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
