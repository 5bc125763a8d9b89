"""A job that fails in one place goes to the other, once, and never with words of both."""

import asyncio
from typing import Any

import pytest

from agent import line
from agent.admission import Signals
from agent.contract.errors import Code, JobError
from agent.contract.events import Outcome, Usage
from agent.contract.jobs import Frame, Key, Sampling
from agent.engines.base import Cost, Health
from agent.placement import Decision
from agent.testing import Attempt, FakeCloud, FakeEngine
from tests.jobs.dispatching import Box, running
from tests.jobs.tickets import job
from tests.waiting import eventually

DOWN = JobError(Code.CLOUD_UNAVAILABLE, "the endpoint does not answer", 60.0, reason="network")
BROKE = JobError(Code.OUT_OF_MEMORY, "the box ran out of memory")


def answer(attempt: Attempt, *words: str) -> None:
    attempt.start()
    attempt.say(*words)
    attempt.finish()


def teach(box: Box, seconds: float, station: str = "text") -> None:
    """Let a station know that every job takes so long."""
    estimator = box.lines[station].estimator  # type: ignore[index]
    for _ in range(12):
        estimator.ran(job("past"), Usage(3, 512), Cost(seconds / 100, seconds))


def where(box: Box, name: str) -> tuple[str, str]:
    placed = box.finals[name].placement
    return placed.where, placed.reason


async def test_what_fails_here_before_its_first_word_runs_in_the_cloud_in_the_same_attempt() -> None:
    async with running(cloud=FakeCloud()) as box:
        key = box.admit("j1")
        (await box.engine.attempt(key)).fail(BROKE)
        answer(await box.cloud.attempt(key), "Hello")
        final = await box.final("j1")
        assert (final.text, final.attempt, where(box, "j1")) == ("Hello", 1, ("cloud", "fallback"))


async def test_the_final_names_the_model_and_the_provider_that_answered() -> None:
    async with running(cloud=FakeCloud()) as box:
        key = box.admit("j1", placement="cloud_only")
        answer(await box.cloud.attempt(key), "Hello")
        placed = (await box.final("j1")).placement
        assert (placed.model, placed.provider) == ("fake-cloud", "fake")


async def test_what_fails_in_the_cloud_before_its_first_word_runs_here() -> None:
    async with running(cloud=FakeCloud(), policy="prefer_cloud") as box:
        key = box.admit("j1")
        (await box.cloud.attempt(key)).fail(DOWN)
        answer(await box.engine.attempt(key), "Hi")
        final = await box.final("j1")
        assert (final.text, final.attempt, where(box, "j1")) == ("Hi", 1, ("local", "fallback"))


async def test_what_breaks_off_in_the_cloud_begins_a_new_attempt_here_that_is_announced_and_stored() -> None:
    async with running(cloud=FakeCloud(), policy="prefer_cloud") as box:
        key = box.admit("j1")
        first = await box.cloud.attempt(key)
        first.start()
        first.say("cloudy")
        await box.until(lambda: box.events("j1", "chunk") != [])
        first.fail(DOWN)
        answer(await box.engine.attempt(key), "local")
        final = await box.final("j1")
        assert (final.text, final.attempt) == ("local", 2)
        assert [(each["attempt"], each["seq"], each["text"]) for each in box.events("j1", "chunk")] == [
            (1, 0, "cloudy"),
            (2, 0, "local"),
        ]
        assert [each["state"] for each in box.events("j1", "state")] == ["accepted", "started", "restarted"]
        assert box.requeued == [("j1", 2)]


async def test_what_fails_everywhere_has_one_final_that_says_what_was_tried() -> None:
    async with running(cloud=FakeCloud()) as box:
        key = box.admit("j1")
        (await box.engine.attempt(key)).fail(BROKE)
        (await box.cloud.attempt(key)).fail(DOWN)
        error = (await box.final("j1")).error
        assert error is not None
        assert (error.code, error.message) == (
            Code.OUT_OF_MEMORY,
            "here: the box ran out of memory; in the cloud: the endpoint does not answer",
        )


async def test_a_job_that_breaks_off_with_nowhere_to_go_ends_with_what_it_said() -> None:
    async with running(cloud=FakeCloud()) as box:
        key = box.admit("j1", placement="cloud_only")
        attempt = await box.cloud.attempt(key)
        attempt.start()
        attempt.say("clou")
        attempt.fail(DOWN)
        final = await box.final("j1")
        assert (final.outcome, final.text, final.placement.where) == (Outcome.FAILED, "clou", "cloud")


@pytest.mark.parametrize("fields", [{"private": True}, {"placement": "local_only"}])
async def test_what_must_stay_here_never_falls_back_to_the_cloud(fields: dict[str, Any]) -> None:
    async with running(cloud=FakeCloud()) as box:
        (await box.engine.attempt(box.admit("j1", **fields))).fail(BROKE)
        assert (await box.final("j1")).error == BROKE
        assert box.cloud.attempts == {}


async def test_what_kills_the_engine_twice_may_still_be_answered_elsewhere() -> None:
    async with running(cloud=FakeCloud()) as box:
        key = box.admit("j1")
        for number in (1, 2):
            (await box.engine.attempt(key, number)).lose()
        answer(await box.cloud.attempt(key), "Hello")
        assert (await box.final("j1")).outcome is Outcome.SUCCEEDED


async def test_what_waits_for_a_model_that_has_failed_goes_to_the_cloud() -> None:
    async with running(health=Health("loading", "fake"), cloud=FakeCloud()) as box:
        key = box.admit("j1")
        box.engine.become(Health("failed", "fake", detail="the model's files are damaged"))
        answer(await box.cloud.attempt(key), "Hello")
        await box.final("j1")
        assert where(box, "j1") == ("cloud", "model")


async def test_a_cloud_that_keeps_silent_is_given_up_while_the_box_can_still_do_it() -> None:
    async with running(cloud=FakeCloud(), policy="prefer_cloud") as box:
        teach(box, 0.1)
        key = box.admit("j1", deadline_s=1.5)
        silent = await box.cloud.attempt(key)
        answer(await box.engine.attempt(key), "Hi")
        await box.final("j1")
        assert silent.closed.is_set()
        assert where(box, "j1") == ("local", "fallback")


async def test_a_job_that_would_be_late_here_goes_to_the_cloud_at_once() -> None:
    async with running(slots=1, cloud=FakeCloud()) as box:
        teach(box, 10.0)
        await box.engine.attempt(box.admit("a"))
        answer(await box.cloud.attempt(box.admit("b", deadline_s=15.0)), "Hello")
        await box.final("b")
        assert where(box, "b") == ("cloud", "deadline")


async def test_a_job_that_is_overtaken_and_would_be_late_moves_while_it_waits() -> None:
    async with running(slots=1, cloud=FakeCloud()) as box:
        teach(box, 10.0)
        await box.engine.attempt(box.admit("a"))
        key = box.admit("b", deadline_s=26.0)
        assert box.load.queued == 1
        box.admit("c", priority="high")
        await box.cloud.attempt(key)


async def test_what_can_be_in_time_nowhere_is_refused_at_once() -> None:
    async with running(slots=1) as box:
        teach(box, 10.0)
        decision = box.dispatcher.decide(job("j1"), 5.0)
        assert isinstance(decision, JobError)
        assert decision.code is Code.DEADLINE


async def test_equal_jobs_with_deadlines_run_one_after_another_and_keep_what_they_were_told() -> None:
    async with running(slots=4) as box:
        teach(box, 10.0)
        first = await box.engine.attempt(box.admit("a", deadline_s=30.0))
        second = box.admit("b", deadline_s=60.0)
        queue = (await box.state("b"))["queue"]
        assert (queue["position"], round(queue["predicted_wait_s"]), round(queue["predicted_end_s"])) == (0, 10, 20)
        assert second not in box.engine.attempts
        answer(first, "Hi")
        await box.engine.attempt(second)


async def test_jobs_without_deadlines_share_the_engine() -> None:
    async with running(slots=4) as box:
        teach(box, 10.0)
        for name in ("a", "b"):
            await box.engine.attempt(box.admit(name))


async def test_a_hot_box_sends_away_what_may_go() -> None:
    async with running(cloud=FakeCloud()) as box:
        box.dispatcher.sense(Signals(temperature_c=90.0))
        keys = [box.admit("stays", private=True), box.admit("goes")]
        await box.engine.attempt(keys[0])
        await box.cloud.attempt(keys[1])
        assert box.load.saturated == "heat"


async def test_bytes_that_left_are_told_of_wherever_the_job_then_runs() -> None:
    async with running(cloud=FakeCloud(), policy="prefer_cloud") as box:
        key = box.admit("j1")
        attempt = await box.cloud.attempt(key)
        box.dispatcher.left(key)
        attempt.fail(DOWN)
        answer(await box.engine.attempt(key), "Hi")
        assert (await box.final("j1")).placement.egress


async def test_bytes_that_left_are_told_of_by_a_final_of_a_job_that_waits() -> None:
    async with running(slots=1, cloud=FakeCloud(), policy="prefer_cloud") as box:
        await box.engine.attempt(box.admit("a", placement="local_only"))
        key = box.admit("j1")
        attempt = await box.cloud.attempt(key)
        box.dispatcher.left(key)
        attempt.fail(DOWN)
        await eventually(lambda: Key("c", "j1") in box.lines["text"].queue)
        box.dispatcher.cancel(key)
        final = await box.final("j1")
        assert (final.placement.where, final.placement.egress) == ("none", True)


async def test_a_job_that_never_left_says_so() -> None:
    async with running(cloud=FakeCloud()) as box:
        answer(await box.engine.attempt(box.admit("j1")), "Hi")
        assert not (await box.final("j1")).placement.egress


async def test_an_idle_box_tries_what_it_would_refuse_out_of_caution_alone() -> None:
    async with running() as box:
        teach(box, 10.0)
        decision = box.dispatcher.decide(job("j1"), 10.5)
        assert isinstance(decision, Decision)


async def test_a_box_that_turns_jobs_away_as_too_slow_practises_until_it_knows_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line, "_PRACTICE_S", 0.0)
    async with running() as box:
        short = job("j1", sampling=Sampling(max_tokens=16))
        for _ in range(12):
            box.lines["text"].estimator.ran(short, Usage(3, 16), Cost(0.1, 10.0))
        for number in range(1, 100):
            if isinstance(box.dispatcher.decide(short, 2.0), Decision):
                break
            box.dispatcher.sense(Signals())
            box.dispatcher._wake.set()
            attempt = await box.engine.attempt(Key("edge-slm", "practice"), number)
            attempt.start()
            attempt.finish(16, Cost(0.01, 0.16))
            await eventually(lambda: not box.dispatcher._practice._tasks["text"].done())
            await box.dispatcher._practice._tasks["text"]
        assert 1 < number < 12


async def test_practice_makes_way_for_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_PRACTICE_S", 0.0)
    async with running() as box:
        teach(box, 10.0)
        assert isinstance(box.dispatcher.decide(job("j1"), 2.0), JobError)
        box.dispatcher._wake.set()
        practice = await box.engine.attempt(Key("edge-slm", "practice"))
        await box.engine.attempt(box.admit("j2"))
        await practice.closed.wait()


async def test_a_box_that_refuses_nothing_does_not_practise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_PRACTICE_S", 0.0)
    async with running() as box:
        teach(box, 0.1)
        answer(await box.engine.attempt(box.admit("j1", deadline_s=60.0)), "Hi")
        await box.final("j1")
        box.dispatcher._wake.set()
        await box.engine.attempt(box.admit("j2", deadline_s=60.0))
        assert [key.client for key in box.engine.attempts] == ["c", "c"]


async def test_what_waits_for_an_endpoint_that_is_not_ready_goes_elsewhere() -> None:
    async with running(slots=1, cloud=FakeCloud(slots=1), policy="prefer_cloud") as box:
        await box.cloud.attempt(box.admit("a"))
        key = box.admit("b")
        box.cloud.refused = JobError(Code.CLOUD_UNAVAILABLE, "the endpoint is not ready", 30.0, reason="not_ready")
        box.cloud.become(Health("loading", "fake-cloud", detail="the endpoint is not ready"))
        answer(await box.engine.attempt(key), "Hi")
        await box.final("b")
        assert where(box, "b") == ("local", "fallback")


async def test_a_load_that_takes_longer_than_ever_is_not_believed_to_be_over() -> None:
    async with running(health=Health("loading", "fake"), cloud=FakeCloud()) as box:
        teach(box, 0.1)
        box.lines["text"].estimator.loaded(0.05)
        box.dispatcher.sense(Signals())
        key = box.admit("j1", deadline_s=1.0)
        await box.cloud.attempt(key)


async def test_what_has_a_deadline_does_not_wait_for_a_load_of_which_nothing_is_known() -> None:
    async with running(health=Health("loading", "fake"), cloud=FakeCloud()) as box:
        patient = box.admit("patient")
        await box.cloud.attempt(box.admit("urgent", deadline_s=5.0))
        assert patient not in box.cloud.attempts


async def test_a_box_that_misses_its_deadlines_learns_that_it_is_slow() -> None:
    async with running(slots=1, cloud=FakeCloud()) as box:
        teach(box, 0.02)
        for number in range(1, 30):
            key = box.admit(f"j{number}", deadline_s=0.05)
            await eventually(lambda: key in box.engine.attempts or key in box.cloud.attempts)  # noqa: B023
            if key in box.cloud.attempts:
                break
            (await box.engine.attempt(key)).start()
            await box.final(f"j{number}")
        assert 1 < number < 20


async def test_a_frame_that_comes_back_from_the_cloud_makes_way_for_a_newer_one() -> None:
    vision = FakeEngine(1, model="fake-vision")
    async with running(vision=vision, cloud=FakeCloud(), policy="prefer_cloud") as box:
        frame: dict[str, Any] = {"camera": "porch", "pictures": (b"x",), "frame": Frame()}
        await box.vision.attempt(box.admit("busy", camera="gate", pictures=(b"x",), placement="local_only"))
        old = await box.cloud.attempt(box.admit("old", **frame))
        box.admit("new", **frame, placement="local_only")
        old.fail(DOWN)
        final = await box.final("old")
        assert final.error is not None
        assert final.error.code is Code.SUPERSEDED


async def test_a_frame_supersedes_the_older_one_wherever_that_waits() -> None:
    vision = FakeEngine(1, model="fake-vision")
    async with running(vision=vision, cloud=FakeCloud(slots=1), policy="prefer_cloud") as box:
        frame: dict[str, Any] = {"camera": "porch", "pictures": (b"x",), "frame": Frame()}
        await box.vision.attempt(box.admit("busy", camera="gate", pictures=(b"x",), placement="local_only"))
        box.admit("old", **frame, placement="local_only")
        await box.cloud.attempt(box.admit("new", **frame))
        final = await box.final("old")
        assert final.error is not None
        assert final.error.code is Code.SUPERSEDED


async def test_a_silent_cloud_is_not_given_up_for_a_box_that_would_be_late() -> None:
    async with running(slots=1, cloud=FakeCloud(), policy="prefer_cloud") as box:
        teach(box, 0.5)
        key = box.admit("j1", deadline_s=2.5)
        silent = await box.cloud.attempt(key)
        for name in ("a", "b", "c", "d"):
            box.admit(name, placement="local_only", deadline_s=60.0)
        await asyncio.sleep(2.0)
        answer(silent, "Hello")
        await box.final("j1")
        assert where(box, "j1") == ("cloud", "preferred")


async def test_what_had_started_and_was_then_refused_elsewhere_has_failed() -> None:
    async with running(cloud=FakeCloud()) as box:
        key = box.admit("j1")
        attempt = await box.engine.attempt(key)
        attempt.start()
        attempt.fail(BROKE)
        (await box.cloud.attempt(key)).fail(DOWN)
        assert (await box.final("j1")).outcome is Outcome.FAILED


async def test_jobs_on_their_way_to_disk_are_counted_against_those_that_come() -> None:
    async with running(slots=1) as box:
        teach(box, 1.0)
        decisions = []
        for number in range(4):
            decision = box.dispatcher.decide(job(f"j{number}", deadline_s=2.5), 2.5)
            decisions.append(isinstance(decision, Decision))
            if isinstance(decision, Decision):
                box.dispatcher.hold(job(f"j{number}", deadline_s=2.5), decision)
        assert decisions == [True, True, False, False]


async def test_an_endpoint_that_was_slow_once_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_STALE_S", 0.0)
    async with running(cloud=FakeCloud(), policy="cloud_only") as box:
        teach(box, 100.0, "cloud")
        box.lines["cloud"]._learned_at = 0.0
        assert isinstance(box.dispatcher.decide(job("j1"), 5.0), Decision)


async def test_a_full_queue_sends_away_what_comes_and_works_off_what_waits() -> None:
    async with running(slots=1, cloud=FakeCloud(slots=9), max_jobs=4) as box:
        first = await box.engine.attempt(box.admit("a"))
        waiting = [box.admit(name) for name in ("b", "c", "d")]
        goes = box.dispatcher.decide(job("e", client="other"), None)
        assert isinstance(goes, Decision)
        assert (goes.where, goes.reason) == ("cloud", "queue")
        answer(first, "Hi")
        for key in waiting:
            answer(await box.engine.attempt(key), "Hi")
            await box.final(key.id)
        assert box.cloud.attempts == {}
