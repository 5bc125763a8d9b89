"""A job from admitted to final, with an engine whose every step the test decides."""

import asyncio

import pytest

from agent.admission import Ticket
from agent.contract.errors import Code, JobError
from agent.contract.events import Final, Outcome
from agent.contract.jobs import Key
from agent.engines.base import Health
from agent.testing import FakeEngine
from tests.jobs.dispatching import Box, running
from tests.waiting import eventually


async def test_a_job_ends_with_its_words_and_its_numbers() -> None:
    async with running() as box:
        attempt = await box.engine.attempt(box.admit("j1"))
        attempt.start(prompt_tokens=3)
        attempt.say("Hello", " world")
        attempt.finish(completion_tokens=2)
        final = await box.final("j1")
        assert (final.outcome, final.text, final.finish_reason) == (Outcome.SUCCEEDED, "Hello world", "stop")
        assert (final.usage.prompt_tokens, final.usage.completion_tokens, final.seq) == (3, 2, 2)
        assert (final.placement.where, final.placement.reason, final.placement.model) == ("local", "preferred", "fake")


async def test_states_tell_the_way_of_a_job() -> None:
    async with running() as box:
        attempt = await box.engine.attempt(box.admit("j1"))
        attempt.start()
        attempt.finish()
        await box.final("j1")
        assert [body["state"] for body in box.events("j1", "state")] == ["accepted", "started"]


async def test_no_more_jobs_run_than_the_engine_has_slots() -> None:
    async with running(slots=1) as box:
        first = await box.engine.attempt(box.admit("a"))
        box.admit("b")
        assert box.load.queued == 1
        first.start()
        first.finish()
        await box.engine.attempt(Key("c", "b"))
        assert box.load.queued == 0


async def test_jobs_wait_while_the_model_loads() -> None:
    async with running(health=Health("loading", "fake")) as box:
        key = box.admit("j1")
        assert box.load.queued == 1
        box.engine.become(Health("ready", "fake"))
        await box.engine.attempt(key)


async def test_waiting_jobs_are_refused_once_the_model_has_failed() -> None:
    async with running(health=Health("loading", "fake")) as box:
        box.admit("j1")
        box.engine.become(Health("failed", "fake", detail="the model's files are damaged"))
        final = await box.final("j1")
        assert final.error is not None
        assert (final.outcome, final.error.code) == (Outcome.REJECTED, Code.MODEL_UNAVAILABLE)
        assert final.error.message == "the model's files are damaged"


async def test_a_waiting_job_is_cancelled() -> None:
    async with running(slots=1) as box:
        await box.engine.attempt(box.admit("a"))
        box.dispatcher.cancel(box.admit("b"))
        final = await box.final("b")
        assert (final.outcome, final.text, final.placement.where) == (Outcome.CANCELED, "", "none")


async def test_a_running_job_is_cancelled_with_what_it_said_and_its_engine_let_go() -> None:
    async with running() as box:
        key = box.admit("j1")
        attempt = await box.engine.attempt(key)
        attempt.start()
        attempt.say("Hel")
        await box.until(lambda: box.events("j1", "chunk") != [])
        box.dispatcher.cancel(key)
        final = await box.final("j1")
        assert (final.outcome, final.text, final.usage.completion_tokens) == (Outcome.CANCELED, "Hel", 1)
        assert attempt.closed.is_set()


async def test_a_job_cancelled_before_its_task_ran_is_cancelled() -> None:
    async with running() as box:
        key = box.admit("j1")
        await asyncio.sleep(0)  # the dispatcher starts the job's task, which has not run yet
        box.dispatcher.cancel(key)
        assert (await box.final("j1")).outcome is Outcome.CANCELED


async def test_cancelling_twice_gives_one_final() -> None:
    async with running() as box:
        key = box.admit("j1")
        (await box.engine.attempt(key)).start()
        box.dispatcher.cancel(key)
        box.dispatcher.cancel(key)
        assert (await box.final("j1")).outcome is Outcome.CANCELED


async def test_a_job_that_waits_past_its_deadline_times_out() -> None:
    async with running(slots=1) as box:
        await box.engine.attempt(box.admit("a"))
        box.admit("b", deadline_s=0.02)
        final = await box.final("b")
        assert final.error is not None
        assert (final.outcome, final.error.code) == (Outcome.TIMED_OUT, Code.DEADLINE)


async def test_a_job_that_runs_past_its_deadline_times_out_with_what_it_said() -> None:
    async with running() as box:
        attempt = await box.engine.attempt(box.admit("j1", deadline_s=0.05))
        attempt.start()
        attempt.say("Hel")
        final = await box.final("j1")
        assert (final.outcome, final.text) == (Outcome.TIMED_OUT, "Hel")
        assert attempt.closed.is_set()


async def test_a_job_whose_engine_died_begins_again_with_nothing_of_the_first_attempt() -> None:
    async with running() as box:
        key = box.admit("j1")
        first = await box.engine.attempt(key)
        first.start()
        first.say("old")
        first.lose()
        second = await box.engine.attempt(key, 2)
        second.start()
        second.say("new")
        second.finish()
        final = await box.final("j1")
        assert (final.text, final.attempt, final.seq) == ("new", 2, 1)
        assert [(body["attempt"], body["seq"], body["text"]) for body in box.events("j1", "chunk")] == [
            (1, 0, "old"),
            (2, 0, "new"),
        ]
        assert [body["state"] for body in box.events("j1", "state")] == ["accepted", "started", "restarted"]


async def test_the_new_attempt_is_on_disk_before_it_says_a_word() -> None:
    async with running() as box:
        key = box.admit("j1")
        (await box.engine.attempt(key)).lose()
        await box.engine.attempt(key, 2)
        assert box.requeued == [("j1", 2)]


async def test_a_job_cancelled_between_two_attempts_has_a_final() -> None:
    async with running() as box:
        box.disk.clear()
        key = box.admit("j1")
        (await box.engine.attempt(key)).lose()
        await box.writing.wait()
        box.dispatcher.cancel(key)
        assert (await box.final("j1")).outcome is Outcome.CANCELED


async def test_a_job_that_kills_the_engine_twice_is_internal_and_the_others_go_on() -> None:
    async with running(slots=2) as box:
        poison, innocent = box.admit("poison"), box.admit("innocent")
        for key in (poison, innocent):
            (await box.engine.attempt(key)).lose()
        (await box.engine.attempt(poison, 2)).lose()
        second = await box.engine.attempt(innocent, 2)
        second.start()
        second.finish()
        outcomes = [(await box.final(name)).outcome for name in ("poison", "innocent")]
        assert outcomes == [Outcome.FAILED, Outcome.SUCCEEDED]
        error = box.finals["poison"].error
        assert error is not None
        assert error.code is Code.INTERNAL


async def test_a_cancelled_suspect_makes_way_for_the_others() -> None:
    async with running(slots=3) as box:
        suspect, long = box.admit("suspect"), box.admit("long")
        first = await box.engine.attempt(suspect)
        await box.engine.attempt(long)
        first.lose()
        await eventually(lambda: box.load.active == 1)
        other = box.admit("other")
        assert box.load.queued == 2
        box.dispatcher.cancel(suspect)
        await box.engine.attempt(other)


async def test_a_job_that_spoke_and_then_lost_its_engine_for_good_has_failed() -> None:
    async with running() as box:
        attempt = await box.engine.attempt(box.admit("j1"))
        attempt.start()
        attempt.say("Hel")
        await box.until(lambda: box.events("j1", "chunk") != [])
        box.engine.health = Health("loading", "fake")
        attempt.lose()
        box.engine.become(Health("failed", "fake", detail="gone"))
        assert (await box.final("j1")).outcome is Outcome.FAILED


async def test_suspects_run_one_at_a_time() -> None:
    async with running(slots=2) as box:
        keys = [box.admit("a"), box.admit("b")]
        for key in keys:
            (await box.engine.attempt(key)).lose()
        second = await box.engine.attempt(keys[0], 2)
        assert box.load.active == 1
        second.start()
        second.finish()
        await box.engine.attempt(keys[1], 2)


async def test_what_the_engine_refuses_before_it_starts_is_rejected() -> None:
    async with running() as box:
        attempt = await box.engine.attempt(box.admit("j1"))
        attempt.fail(JobError(Code.TOO_LARGE, "the prompt has 9,000 tokens"))
        final = await box.final("j1")
        assert (final.outcome, final.placement.where) == (Outcome.REJECTED, "none")


async def test_what_fails_after_the_start_has_failed() -> None:
    async with running() as box:
        attempt = await box.engine.attempt(box.admit("j1"))
        attempt.start()
        attempt.fail(JobError(Code.OUT_OF_MEMORY, "the engine ran out of memory"))
        assert (await box.final("j1")).outcome is Outcome.FAILED


async def test_a_defect_in_one_job_is_its_own_and_internal() -> None:
    async with running() as box:
        attempt = await box.engine.attempt(box.admit("j1"))
        attempt.fail(ZeroDivisionError())
        error = (await box.final("j1")).error
        assert error is not None
        assert error.code is Code.INTERNAL
        (await box.engine.attempt(box.admit("j2"))).finish()
        await box.final("j2")


async def test_a_defect_after_the_first_words_ends_the_job_with_them() -> None:
    async with running() as box:
        attempt = await box.engine.attempt(box.admit("j1"))
        attempt.start()
        attempt.say("Hello", " world")
        attempt.fail(ZeroDivisionError())
        final = await box.final("j1")
        assert (final.outcome, final.text, final.seq) == (Outcome.FAILED, "Hello world", len(box.events("j1", "chunk")))


async def test_a_final_that_cannot_be_stored_for_a_defect_ends_the_dispatcher_loudly() -> None:
    box = Box({"text": FakeEngine()})

    async def broken(_ticket: Ticket, _final: Final) -> None:
        raise OverflowError

    box.dispatcher._finish = broken
    task = asyncio.create_task(box.dispatcher.run())
    (await box.engine.attempt(box.admit("j1"))).finish()
    with pytest.raises(ExceptionGroup) as raised:
        await task
    assert raised.group_contains(OverflowError)


async def test_the_predicted_wait_is_unknown_while_the_model_loads() -> None:
    async with running(health=Health("loading", "fake")) as box:
        box.admit("j1")
        assert box.events("j1", "state")[0]["queue"]["predicted_wait_s"] is None


async def test_a_job_is_known_until_its_final_is_on_disk() -> None:
    async with running() as box:
        key = box.admit("j1")
        waiting = box.dispatcher.knows(key)
        attempt = await box.engine.attempt(key)
        running_ = box.dispatcher.knows(key)
        attempt.finish()
        await box.final("j1")
        assert (waiting, running_) == (True, True)


async def test_a_drain_lets_running_jobs_end_and_starts_none() -> None:
    async with running(slots=1) as box:
        attempt = await box.engine.attempt(box.admit("a"))
        box.admit("b")
        drained = asyncio.create_task(box.dispatcher.drain(60.0))
        attempt.start()
        attempt.finish()
        assert await drained == 1
        assert list(box.finals) == ["a"]


async def test_a_drain_gives_up_at_its_deadline_and_leaves_the_job_without_a_final() -> None:
    async with running(slots=1) as box:
        attempt = await box.engine.attempt(box.admit("a"))
        assert await box.dispatcher.drain(0.01) == 1
        assert attempt.closed.is_set()
        assert box.finals == {}


@pytest.mark.parametrize("count", [0, 3])
async def test_the_predicted_wait_is_zero_while_a_slot_is_free(count: int) -> None:
    async with running(slots=4) as box:
        for number in range(count):
            await box.engine.attempt(box.admit(f"j{number}"))
        assert box.load.predicted_wait_s == 0.0


async def test_a_dispatcher_that_is_cancelled_lets_its_jobs_go_without_a_final() -> None:
    async with running(slots=1) as box:
        attempt = await box.engine.attempt(box.admit("a"))
    attempt.lose()  # as its engine ends with the box
    await attempt.closed.wait()
    assert (box.finals, box.requeued) == ({}, [])


async def test_a_job_that_was_ended_while_it_waited_is_known_until_its_final_is_stored() -> None:
    async with running(slots=1) as box:
        await box.engine.attempt(box.admit("a"))
        key = box.admit("b")
        box.dispatcher.cancel(key)
        assert box.dispatcher.knows(key)
        await box.final("b")
