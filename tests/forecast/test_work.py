"""The start rule and the predictions, beside a worker that takes turns as the real one does."""

import itertools
import time
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.forecast import Running, Waiting, Work, foresee, may_start

# Of the worker in these tests. A turn is at most a slice and a token of each of five jobs.
TOKEN_S = 0.01
SLICE_S = 0.1
TURN_S = SLICE_S + 5 * TOKEN_S
ROUNDING_S = 1e-6

works = st.builds(
    lambda slices, tokens: Work(slices * SLICE_S, tokens * TOKEN_S), st.integers(0, 8), st.integers(1, 80)
)
promises = st.none() | st.floats(0, 6)
runnings = st.lists(st.builds(Running, works, promises), max_size=4)
waitings = st.lists(st.builds(Waiting, works, promises), min_size=1, max_size=8)
slots = st.integers(1, 5)


def take_turns(jobs: Sequence[Work]) -> list[float]:
    """Run jobs as the worker does: a token of each answer, then a slice of one prompt; return when each ends."""
    slices = [round(job.prefill_s / SLICE_S) for job in jobs]
    tokens = [round(job.decode_s / TOKEN_S) for job in jobs]
    ends = [0.0] * len(jobs)
    now = 0.0
    for turn in itertools.count(1):
        for at in [at for at in range(len(jobs)) if not slices[at] and tokens[at]]:
            now += TOKEN_S
            tokens[at] -= 1
            ends[at] = now
        prompts = [at for at in range(len(jobs)) if slices[at]]
        if prompts:
            now += SLICE_S
            slices[min(prompts, key=lambda at: slices[at]) if turn % 4 else prompts[0]] -= 1
        elif not any(tokens):
            break
    return ends


@given(works, runnings)
def test_a_job_that_may_start_breaks_no_promise(work: Work, running: list[Running]) -> None:
    assume(may_start(work, running))
    ends = take_turns([*(each.left for each in running), work])

    assert [each for each, end in zip(running, ends, strict=False) if each.until and end > each.until + TURN_S] == []


@given(works, works, st.floats(0, 2))
def test_a_job_that_would_break_a_promise_by_its_prompt_alone_may_not_start(work: Work, left: Work, air: float) -> None:
    assume(work.prefill_s > air)
    assert not may_start(work, [Running(left, until=left.total_s + air)])


@given(works, st.lists(works, max_size=4))
def test_what_nothing_was_promised_holds_nobody_up(work: Work, running: list[Work]) -> None:
    assert may_start(work, [Running(each) for each in running])


def test_a_short_job_may_start_beside_a_long_one_that_has_time() -> None:
    long = Running(Work(0, 5), until=6)

    assert may_start(Work(0.1, 0.5), [long])
    assert not may_start(Work(0.5, 0.6), [long])


def test_a_job_that_runs_late_has_nobody_start_beside_it() -> None:
    assert not may_start(Work(0, 0.01), [Running(Work(0, 1), until=0.5)])


@given(st.lists(works, min_size=1, max_size=5))
def test_jobs_that_share_end_when_the_worker_ends_them(jobs: list[Work]) -> None:
    spans = foresee([], [Waiting(job) for job in jobs], len(jobs), shared=True)
    lasts = max(take_turns(jobs)), max(span.ends_s for span in spans)

    assert abs(lasts[0] - lasts[1]) < ROUNDING_S
    if not any(job.prefill_s for job in jobs):
        assert all(abs(span.ends_s - end) < TURN_S for span, end in zip(spans, take_turns(jobs), strict=True))


@given(runnings, waitings, slots)
def test_the_processor_has_no_work_but_what_was_given_and_is_never_idle(
    running: list[Running], waiting: list[Waiting], slots: int
) -> None:
    work_s = sum(each.left.total_s for each in running) + sum(each.work.total_s for each in waiting)
    last = foresee(running, [*waiting, Waiting(Work(0, 99))], slots, shared=True)[-1]

    assert abs(last.ends_s - work_s - 99) < ROUNDING_S


@pytest.mark.parametrize("shared", [True, False])
@given(running=runnings, waiting=waitings, slots=slots)
def test_no_job_takes_less_than_its_work_or_starts_before_the_one_ahead_of_it(
    running: list[Running], waiting: list[Waiting], slots: int, *, shared: bool
) -> None:
    spans = foresee(running, waiting, slots, shared=shared)

    assert all(
        span.ends_s - span.begins_s > each.work.total_s - ROUNDING_S for span, each in zip(spans, waiting, strict=True)
    )
    begins = [span.begins_s for span in spans]
    assert begins == sorted(begins)


@pytest.mark.parametrize("shared", [True, False])
@given(running=runnings, waiting=waitings, slots=slots)
def test_no_more_jobs_run_at_once_than_there_are_slots(
    running: list[Running], waiting: list[Waiting], slots: int, *, shared: bool
) -> None:
    spans = foresee(running, waiting, slots, shared=shared)
    at_once = [
        sum(span.begins_s <= begin < span.ends_s - ROUNDING_S for span in spans)
        for begin in {each[0] for each in spans}
    ]

    assert max(at_once) <= slots


@given(st.lists(works, min_size=1, max_size=8), slots)
def test_jobs_whose_promises_have_no_air_run_one_after_another(jobs: list[Work], slots: int) -> None:
    ends = list(itertools.accumulate(job.total_s for job in jobs))
    waiting = [Waiting(job, end) for job, end in zip(jobs, ends, strict=True)]
    spans = foresee([], waiting, slots, shared=True)

    assert all(abs(span.ends_s - end) < ROUNDING_S for span, end in zip(spans, ends, strict=True))


@given(runnings, st.lists(works, min_size=1, max_size=6), st.floats(1, 2), works, slots)
def test_what_was_promised_to_those_ahead_stays_true_behind_them(
    running: list[Running], jobs: list[Work], air: float, last: Work, slots: int
) -> None:
    waiting: list[Waiting] = []
    for job in jobs:  # as they came, each promised what was foreseen for it
        span = foresee(running, [*waiting, Waiting(job)], slots, shared=True)[-1]
        waiting.append(Waiting(job, span.ends_s * air))
    spans = foresee(running, [*waiting, Waiting(last)], slots, shared=True)

    assert [
        each for each, span in zip(waiting, spans, strict=False) if span.ends_s > (each.until or 0) + ROUNDING_S
    ] == []


@given(runnings, waitings, slots)
def test_elsewhere_each_job_takes_its_own_time_from_the_first_free_slot_on(
    running: list[Running], waiting: list[Waiting], slots: int
) -> None:
    free_at = [0.0] * max(slots - len(running), 0) + [each.left.total_s for each in running]
    spans = foresee(running, waiting, slots, shared=False)
    for each, span in zip(waiting, spans, strict=True):
        begins_s = sorted(free_at)[-slots:][0]
        assert span == (begins_s, begins_s + each.work.total_s)
        free_at.remove(begins_s)
        free_at.append(span.ends_s)


def test_a_full_line_is_foreseen_before_the_loop_would_stall() -> None:
    running = [Running(Work(0.1 * at, 1.0), until=9.0 * at) for at in range(4)]
    waiting = [Waiting(Work(0.01 * at, 0.02 * at), until=100.0) for at in range(33)]
    taken_s = []
    for _ in range(20):
        begun = time.thread_time()
        foresee(running, waiting, 4, shared=True)
        taken_s.append(time.thread_time() - begun)

    assert min(taken_s) < 0.01  # 0.2 ms here, and ten times as much where coverage is measured
