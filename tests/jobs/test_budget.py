"""What the cloud may cost: when a job is refused, what is held back meanwhile, and which day it is."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.budget import Budget, Entry, prompt_tokens
from agent.contract.errors import Code, JobError
from agent.contract.events import Usage
from agent.contract.jobs import Job, Message, Sampling
from agent.settings import Allowance, Price, Spending
from agent.settings import Budget as Bounds

FREE = Price()


def at(moment: str) -> float:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()


NOON = at("2026-11-22T12:00")
UNSET = at("1970-01-01T00:01")


def job(name: str = "a", camera: str | None = None, max_tokens: int | None = 10, prompt: str = "hi") -> Job:
    messages = (Message(role="user", content=prompt),)
    return Job(client="dev", id=name, camera=camera, messages=messages, sampling=Sampling(max_tokens=max_tokens))


def of_the_box(*, day: Spending | None = None, month: Spending | None = None, price: Price = FREE) -> Budget:
    allowance = Allowance(day=day or Spending(), month=month or Spending())
    return Budget(Bounds(box=allowance), price, default_max_tokens=512)


def of_a_camera(day: Spending) -> Budget:
    return Budget(Bounds(camera=Allowance(day=day)), FREE)


def spend(budget: Budget, job: Job, now: float = NOON, tokens: int = 0) -> list[Entry]:
    budget.began(job, now)
    return budget.used(job, Usage(completion_tokens=tokens), now)


def refused(budget: Budget, job: Job, now: float = NOON) -> JobError:
    error = budget.refusal(job, now)
    assert error is not None
    return error


def test_without_bounds_nothing_is_refused() -> None:
    budget = of_the_box()
    spend(budget, job(max_tokens=1_000_000), tokens=1_000_000)
    assert budget.refusal(job(max_tokens=1_000_000), NOON) is None


@pytest.mark.parametrize(
    ("bound", "lack"),
    [
        (Spending(requests=1), "0 of 1 requests left for this day, and this job may take 1"),
        (Spending(tokens=60), "10 of 60 tokens left for this day, and this job may take 20"),
        (Spending(money=0.6), "0.1 of 0.6 money left for this day, and this job may take 0.2"),
    ],
)
def test_at_zero_a_job_is_refused_with_the_budget_and_the_time_in_the_sentence(bound: Spending, lack: str) -> None:
    budget = of_the_box(day=bound, price=Price(completion=10_000, prompt=10_000))
    spend(budget, job(), tokens=50)
    kind = next(iter(bound.model_dump(exclude_none=True)))
    error = refused(budget, job(max_tokens=20, prompt="x"))
    assert (error.code, error.word) == (Code.CLOUD_UNAVAILABLE, "budget")
    assert error.message == (
        f"the cloud budget of the box has {lack}: raise cloud.budget.box.day.{kind},"
        " or try again after 2026-11-23 00:00 UTC"
    )
    assert error.retry_after_s == 12 * 3600
    assert error.as_dict()["retryable"] is True


def test_what_is_spent_of_a_month_is_told_before_the_day_that_is_spent_too() -> None:
    budget = of_the_box(day=Spending(requests=1), month=Spending(requests=1))
    spend(budget, job())
    error = refused(budget, job())
    assert "cloud.budget.box.month.requests, or try again after 2026-12-01 00:00 UTC" in error.message
    assert error.retry_after_s == 8.5 * 86_400


def test_a_day_that_is_over_leaves_its_budget_behind_and_the_months_goes_on() -> None:
    budget = of_the_box(day=Spending(requests=1), month=Spending(requests=2))
    spend(budget, job())
    assert budget.refusal(job(), NOON + 86_400) is None
    spend(budget, job(), NOON + 86_400)
    assert "month.requests" in refused(budget, job(), NOON + 2 * 86_400).message
    assert budget.refusal(job(), at("2026-12-01T00:00")) is None


def test_a_job_that_could_take_more_than_is_left_is_refused_and_a_smaller_one_is_not() -> None:
    budget = of_the_box(day=Spending(tokens=100))
    assert "this job may take 101" in refused(budget, job(max_tokens=100, prompt="four")).message
    assert budget.refusal(job(max_tokens=99, prompt="four"), NOON) is None


@pytest.mark.parametrize("bound", [Spending(requests=0), Spending(tokens=5)])
def test_a_job_that_never_fits_is_not_told_to_come_again(bound: Spending) -> None:
    error = refused(of_the_box(day=bound), job(max_tokens=9))
    assert "try again" not in error.message
    assert (error.as_dict()["retryable"], error.retry_after_s) == (False, None)


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        (job(max_tokens=None, prompt="x"), 512),
        (job(max_tokens=1, prompt="x" * 300), 101),
        (job(max_tokens=1, prompt="好" * 100), 101),
        (job(max_tokens=1, prompt="x").model_copy(update={"pictures": (b"1", b"2")}), 5019),
    ],
)
def test_what_a_job_may_take_is_its_prompt_its_pictures_and_its_longest_answer(asked: Job, most: int) -> None:
    assert of_the_box(day=Spending(tokens=most)).refusal(asked, NOON) is None
    assert f"may take {most:,}:" in refused(of_the_box(day=Spending(tokens=most - 1)), asked).message


def test_what_jobs_under_way_may_take_is_held_back_until_it_is_known() -> None:
    budget = of_the_box(day=Spending(tokens=100))
    budget.began(job("a", max_tokens=60), NOON)
    assert "40 of 100 tokens left" in refused(budget, job("b", max_tokens=60)).message
    budget.used(job("a"), Usage(completion_tokens=5), NOON)
    assert budget.refusal(job("b", max_tokens=60), NOON) is None


def test_a_job_that_is_tried_again_does_not_stand_in_its_own_way() -> None:
    budget = of_the_box(day=Spending(tokens=100))
    for _ in range(3):
        assert budget.refusal(job(max_tokens=90), NOON) is None
        budget.began(job(max_tokens=90), NOON)
    budget.used(job(), Usage(), NOON)
    assert budget.refusal(job("b", max_tokens=100), NOON) is None


def test_every_request_counts_and_so_does_one_that_is_tried_again() -> None:
    budget = of_the_box(day=Spending(requests=2))
    budget.began(job(), NOON)
    assert budget.refusal(job("b"), NOON) is None
    budget.began(job(), NOON)
    assert "0 of 2 requests left" in refused(budget, job("b")).message


def test_a_request_that_did_not_leave_after_all_does_not_count() -> None:
    budget = of_the_box(day=Spending(requests=1))
    budget.began(job(), NOON)
    budget.stayed(job(), NOON)
    budget.used(job(), Usage(), NOON)
    assert budget.refusal(job("b"), NOON) is None


@pytest.mark.parametrize(("prompt", "pictures", "tokens"), [("x" * 300, 0, 100), ("好" * 100, 0, 100), ("x", 2, 5018)])
def test_a_prompt_is_estimated_by_its_bytes_and_its_pictures(prompt: str, pictures: int, tokens: int) -> None:
    assert prompt_tokens(job(prompt=prompt).model_copy(update={"pictures": (b"1",) * pictures})) == tokens


def test_of_a_camera_and_of_the_box_is_counted_side_by_side() -> None:
    budget = of_a_camera(Spending(requests=1))
    spend(budget, job(camera="porch"))
    assert "the cloud budget of camera porch has 0 of 1 requests" in refused(budget, job(camera="porch")).message
    assert "cloud.budget.camera.day.requests" in refused(budget, job(camera="porch")).message
    assert budget.refusal(job(camera="gate"), NOON) is None
    assert budget.refusal(job(), NOON) is None


def test_what_is_to_be_kept_is_the_totals_of_all_who_paid() -> None:
    budget = of_the_box(price=Price(prompt=2, completion=10))
    spend(budget, job(), tokens=7)
    frame = job(camera="porch")
    assert budget.began(frame, NOON) == [
        Entry("2026-11", "", 2, 7, 7e-05),
        Entry("2026-11", "dev/porch", 1, 0, 0.0),
        Entry("2026-11-22", "", 2, 7, 7e-05),
        Entry("2026-11-22", "dev/porch", 1, 0, 0.0),
    ]
    kept = budget.used(frame, Usage(prompt_tokens=1000, completion_tokens=100), NOON)
    assert [(each.requests, each.tokens, round(each.money, 6)) for each in kept] == [
        (2, 1107, 0.00307),
        (1, 1100, 0.003),
    ] * 2


def test_a_later_run_goes_on_with_what_was_kept() -> None:
    first = of_the_box(day=Spending(requests=3))
    spend(first, job("a"))
    kept = spend(first, job("b"))
    again = of_the_box(day=Spending(requests=3))
    again.load(kept)
    spend(again, job("c"))
    assert "0 of 3" in refused(again, job("d")).message


def test_cameras_that_are_made_up_share_one_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.budget._MOST_CAMERAS", 2)
    budget = of_a_camera(Spending(requests=3))
    payers = {entry.payer for n in range(5) for entry in spend(budget, job(camera=f"c{n}"))}
    assert payers == {"", "dev/c0", "dev/c1", "others"}
    assert "camera c9 has 0 of 3" in refused(budget, job(camera="c9")).message
    assert budget.refusal(job(camera="c0"), NOON) is None


def test_what_is_left_is_told_by_period_and_kind() -> None:
    budget = of_the_box(day=Spending(requests=10, money=0.5), month=Spending(tokens=100), price=Price(completion=1000))
    spend(budget, job(), tokens=120)
    assert budget.left(NOON) == {
        "day": {"requests": 9, "tokens": None, "money": 0.38},
        "month": {"requests": None, "tokens": 0, "money": None},
    }
    assert budget.left(NOON + 86_400)["day"]["requests"] == 10


def after(budget: Budget, *moments: str) -> int:
    """Let the clock show some times, and return how many of the box's ten requests are left today."""
    left: list[Any] = [budget.left(at(moment))["day"]["requests"] for moment in moments]
    return int(left[-1])


def known(day: str, requests: int = 10) -> Budget:
    """Return a day's budget of ten requests of which an earlier run spent some."""
    budget = of_the_box(day=Spending(requests=10))
    budget.load([Entry(day, "", requests, 0, 0.0)])
    return budget


def test_a_box_that_starts_in_1970_goes_on_with_the_day_that_is_known() -> None:
    budget = known("2026-11-22", 4)
    assert after(budget, "1970-01-01T00:00") == 6
    assert spend(budget, job(), UNSET)[1] == Entry("2026-11-22", "", 5, 0, 0.0)
    assert after(budget, "2026-11-22T18:00") == 5


def test_once_it_finds_the_time_a_new_day_has_its_own_budget() -> None:
    assert after(known("2026-11-22"), "1970-01-01T00:00", "2026-11-23T08:00") == 10


def test_what_is_spent_before_the_clock_was_ever_set_counts_once_it_is() -> None:
    budget = of_the_box(day=Spending(requests=10))
    spend(budget, job(camera="porch"), UNSET)
    spend(budget, job(), UNSET)
    assert after(budget, "2026-11-22T08:00") == 8
    # The camera's, too, is kept under the day's own name, though it pays for nothing now.
    day = [each for each in budget.began(job(), NOON) if each.period == "2026-11-22"]
    assert [(each.payer, each.requests) for each in day] == [("", 3), ("dev/porch", 1)]


def test_under_a_clock_that_nobody_sets_days_end_all_the_same() -> None:
    budget = of_the_box(day=Spending(requests=1))
    spend(budget, job(), UNSET)
    assert budget.refusal(job(), UNSET + 86_400) is None


def test_a_clock_that_is_set_back_over_midnight_changes_nothing() -> None:
    budget = known("2026-11-22")
    assert after(budget, "2026-11-22T23:59", "2026-11-23T00:00") == 10
    spend(budget, job(), at("2026-11-23T00:00"))
    assert after(budget, "2026-11-22T23:59", "2026-11-23T00:00") == 9


def test_a_day_of_the_future_ends_with_the_day_that_the_clock_shows() -> None:
    budget = known("2036-01-01")
    error = refused(budget, job())
    assert "try again after 2026-11-23 00:00 UTC" in error.message
    assert after(budget, "2026-11-22T23:59") == 0
    assert after(budget, "2026-11-23T00:00") == 10
    spend(budget, job(), at("2026-11-23T00:01"))
    assert after(budget, "2026-11-23T00:02") == 9


def test_days_of_the_future_do_not_come_back_by_a_restart() -> None:
    assert after(known("2036-01-01", 3), "2026-11-22T23:59") == 7


def test_of_several_days_the_latest_counts() -> None:
    budget = of_the_box(day=Spending(requests=10))
    budget.load([Entry("2026-11-22", "", 3, 0, 0.0), Entry("2026-11-21", "", 9, 0, 0.0)])
    assert budget.left(NOON)["day"]["requests"] == 7


def test_it_shows_what_is_spent() -> None:
    budget = of_the_box()
    budget.began(job(), NOON)
    assert "2026-11-22: _Amount(requests=1" in repr(budget)
    assert repr(budget).endswith("1 under way>")


@given(steps=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 60), st.floats(0, 1))))
def test_one_after_the_other_jobs_never_pass_a_budget_of_tokens(steps: list[tuple[str, int, float]]) -> None:
    budget = of_the_box(day=Spending(tokens=200))
    under_way: dict[str, Job] = {}
    for name, most, share in steps:
        ended = under_way.pop(name, None)
        if ended is not None:
            taken = round(share * (ended.sampling.max_tokens or 0))
            budget.used(ended, Usage(completion_tokens=taken), NOON)
        elif budget.refusal(asked := job(name, max_tokens=most), NOON) is None:
            budget.began(asked, NOON)
            under_way[name] = asked
    for asked in under_way.values():
        budget.used(asked, Usage(completion_tokens=asked.sampling.max_tokens or 0), NOON)
    (_, day) = budget.used(job("last"), Usage(), NOON)
    assert day.tokens <= 200
