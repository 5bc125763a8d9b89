"""Two engines under one dispatcher, and cameras: what one waits for is no other's business."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from agent.admission import Ticket
from agent.contract.errors import Code, JobError
from agent.contract.events import Final, Outcome
from agent.contract.jobs import Frame, Job, Key
from agent.engines.base import Health, SimilarFrame
from agent.placement import Decision
from agent.testing import FakeEngine
from tests.jobs.dispatching import Box, running
from tests.jobs.tickets import job

JPEG = b"\xff\xd8\xff"


def both(slots: int = 1, **changes: Any) -> AbstractAsyncContextManager[Box]:
    return running(slots, vision=FakeEngine(slots, model="fake-vision"), **changes)


def a_frame(camera: str = "porch", interval_s: float = 0.0) -> dict[str, Any]:
    return {"camera": camera, "pictures": (JPEG,), "frame": Frame(min_interval_s=interval_s)}


def local(box: Box, each: Job) -> Decision:
    decision = box.dispatcher.decide(each, None)
    assert isinstance(decision, Decision)
    return decision


def told(final: Final) -> tuple[Outcome, Code | None]:
    return final.outcome, None if final.error is None else final.error.code


async def test_text_and_pictures_run_side_by_side_each_on_its_engine() -> None:
    async with both() as box:
        text, picture = box.admit("t"), box.admit("p", **a_frame())
        await box.engine.attempt(text)
        await box.vision.attempt(picture)
        assert (list(box.engine.attempts), list(box.vision.attempts)) == ([text], [picture])


async def test_the_final_tells_the_model_that_ran_the_camera_and_the_pictures_tokens() -> None:
    async with both() as box:
        attempt = await box.vision.attempt(box.admit("p", **a_frame("porch")))
        attempt.start(prompt_tokens=320, image_tokens=313)
        attempt.finish()
        final = await box.final("p")
        assert (final.placement.model, final.camera, final.usage.image_tokens) == ("fake-vision", "porch", 313)


async def test_states_tell_the_camera() -> None:
    async with both() as box:
        (await box.vision.attempt(box.admit("p", **a_frame("porch")))).start()
        await box.until(lambda: len(box.events("p", "state")) > 1)
        assert [body["camera"] for body in box.events("p", "state")] == ["porch", "porch"]


async def test_each_engine_has_a_load_of_its_own() -> None:
    async with both(max_jobs=1) as box:
        await box.vision.attempt(box.admit("p", **a_frame()))
        box.admit("g", **a_frame("gate"))
        loads = box.dispatcher.loads
        assert {station: (load.queued, load.active, load.predicted_wait_s) for station, load in loads.items()} == {
            "text": (0, 0, 0.0),
            "vision": (1, 1, None),
        }


async def test_cameras_never_fill_the_text_models_queue() -> None:
    async with both(max_jobs=1) as box:
        await box.vision.attempt(box.admit("p", **a_frame()))
        box.admit("g", **a_frame("gate"))
        text, more = (box.dispatcher.decide(each, None) for each in (job("t"), job("d", **a_frame("door"))))
        assert isinstance(text, Decision)
        assert isinstance(more, JobError)
        assert more.code is Code.QUEUE_FULL


async def test_a_place_that_was_held_is_given_back_to_its_queue() -> None:
    async with both(max_jobs=1) as box:
        picture = job("p", **a_frame())
        decision = local(box, picture)
        box.dispatcher.hold(picture, decision)
        box.dispatcher.release(picture, decision)
        assert isinstance(box.dispatcher.decide(picture, None), Decision)


async def test_a_superseded_frame_is_told_so() -> None:
    async with both() as box:
        await box.vision.attempt(box.admit("running", **a_frame("gate")))
        box.admit("old", **a_frame("porch"))
        box.admit("new", **a_frame("porch"))
        final = await box.final("old")
        assert told(final) == (Outcome.CANCELED, Code.SUPERSEDED)
        assert (final.camera, final.error and final.error.as_dict()["retryable"]) == ("porch", False)


async def test_a_frame_that_is_looked_at_is_not_superseded_by_a_newer_one() -> None:
    async with both() as box:
        first = await box.vision.attempt(box.admit("old", **a_frame()))
        new = box.admit("new", **a_frame())
        first.start()
        first.finish()
        assert told(await box.final("old")) == (Outcome.SUCCEEDED, None)
        await box.vision.attempt(new)


async def test_a_frame_starts_by_itself_when_its_cameras_interval_is_over() -> None:
    async with both() as box:
        clock = asyncio.get_running_loop().time
        before = clock()
        first = await box.vision.attempt(box.admit("p0", **a_frame(interval_s=0.05)))
        first.start()
        first.finish()
        await box.final("p0")
        await box.vision.attempt(box.admit("p1", **a_frame(interval_s=0.05)))
        assert clock() >= before + 0.05


async def test_a_frame_that_waits_for_its_interval_makes_way_for_a_newer_one() -> None:
    async with both() as box:
        (await box.vision.attempt(box.admit("p0", **a_frame(interval_s=3600)))).finish()
        await box.final("p0")
        box.admit("p1", **a_frame(interval_s=3600))
        box.admit("p2", **a_frame(interval_s=3600))
        assert told(await box.final("p1")) == (Outcome.CANCELED, Code.SUPERSEDED)


async def test_a_frame_that_is_skipped_as_similar_is_superseded_and_begins_an_interval() -> None:
    async with both() as box:
        attempt = await box.vision.attempt(box.admit("p0", **a_frame(interval_s=3600)))
        attempt.fail(SimilarFrame())
        final = await box.final("p0")
        assert (told(final), final.placement.where) == ((Outcome.CANCELED, Code.SUPERSEDED), "none")
        box.admit("p1", **a_frame(interval_s=3600))
        await box.vision.attempt(box.admit("g", **a_frame("gate")))
        assert box.dispatcher.knows(Key("c", "p1"))
        assert Key("c", "p1") not in box.vision.attempts


async def test_a_vision_model_that_failed_ends_what_waits_for_it_and_nothing_else() -> None:
    async with both() as box:
        box.vision.become(Health("loading", "fake-vision"))
        text = await box.engine.attempt(box.admit("t"))
        other, _ = box.admit("other"), box.admit("p", **a_frame())
        box.vision.become(Health("failed", "fake-vision", detail="the model's files are damaged"))
        assert told(await box.final("p")) == (Outcome.REJECTED, Code.MODEL_UNAVAILABLE)
        text.finish()
        await box.engine.attempt(other)


async def test_a_picture_starts_when_the_vision_model_has_loaded() -> None:
    async with both() as box:
        box.vision.become(Health("loading", "fake-vision"))
        key = box.admit("p", **a_frame())
        await box.engine.attempt(box.admit("t"))  # the dispatcher has looked at both engines, and sleeps
        box.vision.become(Health("ready", "fake-vision"))
        await box.vision.attempt(key)


async def test_text_runs_beside_a_suspect_frame_and_other_frames_do_not() -> None:
    async with both(slots=2) as box:
        suspect = box.admit("p", **a_frame())
        (await box.vision.attempt(suspect)).lose()
        await box.vision.attempt(suspect, 2)
        other = box.admit("g", **a_frame("gate"))
        await box.engine.attempt(box.admit("t"))
        assert other not in box.vision.attempts


async def test_a_picture_that_waits_past_its_deadline_times_out_whatever_the_text_engine_does() -> None:
    async with both() as box:
        await box.engine.attempt(box.admit("t", deadline_s=3600))
        await box.vision.attempt(box.admit("p", **a_frame()))
        box.admit("g", deadline_s=0.02, **a_frame("gate"))
        assert told(await box.final("g")) == (Outcome.TIMED_OUT, Code.DEADLINE)


async def test_a_picture_is_canceled_waiting_and_running() -> None:
    async with both() as box:
        running_ = box.admit("p", **a_frame())
        await box.vision.attempt(running_)
        for key in (box.admit("g", **a_frame("gate")), running_):
            box.dispatcher.cancel(key)
        assert [told(await box.final(name)) for name in ("g", "p")] == [(Outcome.CANCELED, Code.CANCELED)] * 2


@pytest.mark.parametrize("fields", [{"pictures": (JPEG,)}, {"model": "gone"}])
async def test_a_recovered_job_that_this_box_no_longer_serves_has_a_final(fields: dict[str, Any]) -> None:
    async with running() as box:
        box.admit("j1", **fields)
        final = await box.final("j1")
        assert (final.outcome, box.load.queued) == (Outcome.REJECTED, 0)


async def test_what_finishes_is_told_with_whether_it_is_stored() -> None:
    async with both() as box:
        frame = Ticket(job("p", **a_frame()), 0.0, stored=False)
        box.dispatcher.admit(frame)
        (await box.vision.attempt(frame.job.key)).finish()
        await box.final("p")
        assert [ticket.stored for ticket in box.stored] == [False]


async def test_a_drain_counts_what_is_left_of_both_engines() -> None:
    async with both() as box:
        await box.engine.attempt(box.admit("t"))
        await box.vision.attempt(box.admit("p", **a_frame()))
        box.admit("g", **a_frame("gate"))
        assert await box.dispatcher.drain(0.01) == 3
