"""What an engine's line foretells, with its queue, its jobs and its engine's health."""

import asyncio

import pytest

from agent.admission import Ticket
from agent.contract.events import Usage
from agent.engines.base import Cost, Health
from agent.line import Line
from agent.practice import exercise
from agent.testing import FakeCloud, FakeEngine
from tests.jobs.dispatching import line, running
from tests.jobs.tickets import job


def taught(engine: FakeEngine, seconds: float = 1.0) -> Line:
    """Return a line whose jobs take so long."""
    found = line(engine, max_jobs=100)
    for _ in range(12):
        found.estimator.ran(job("past"), Usage(3, 512), Cost(seconds / 100, seconds * 0.99))
    return found


def test_jobs_beyond_those_that_are_looked_at_count_as_more_like_them() -> None:
    found = taught(FakeEngine(slots=1))
    for number in range(80):
        found.wait(Ticket(job(f"j{number}"), 0.0), 0.0)
    span = found.span(job("last"), 0.0)
    assert span is not None
    assert (round(span.begins_s), round(span.ends_s)) == (80, 81)


def test_a_model_that_loads_is_foretold_to_take_as_long_as_the_last_time_and_what_is_overdue_as_long_again() -> None:
    engine = FakeEngine()
    found = taught(engine)
    found.estimator.loaded(8.0)
    engine.health = Health("loading", "fake")
    spans = [found.span(job("j"), now) for now in (100.0, 105.0, 120.0)]
    assert [each and round(each.begins_s) for each in spans] == [8, 3, 20]


def test_nothing_is_foretold_of_a_model_that_does_not_load() -> None:
    engine = FakeEngine()
    found = taught(engine)
    found.estimator.loaded(8.0)
    engine.health = Health("failed", "fake", detail="it is damaged")
    assert found.span(job("j"), 0.0) is None
    assert found.load(0.0).predicted_wait_s is None


def test_jobs_in_the_cloud_do_not_wait_for_each_other_but_for_the_limit_of_requests() -> None:
    cloud = FakeCloud(slots=4)
    found = taught(cloud)
    cloud.held_up_s = 2.0
    for name in ("a", "b"):
        found.wait(Ticket(job(name), 0.0), 0.0)
    span = found.span(job("c"), 0.0)
    assert span is not None
    assert (round(span.begins_s), round(span.ends_s)) == (2, 3)


def test_a_place_is_foretold_cautiously_and_for_an_idle_engine_likely_too() -> None:
    found = taught(FakeEngine(slots=1))
    place = found.place(job("j"), 0.0, None, ahead=True, bounded=True)
    assert (round(place.likely_s or 0, 2), round(place.ends_s or 0, 2)) == (1.0, 1.15)
    found.wait(Ticket(job("a"), 0.0), 0.0)
    assert found.place(job("j"), 0.0, None, ahead=True, bounded=True).likely_s is None


async def test_a_line_counts_for_how_long_it_was_busy() -> None:
    async with running() as box:
        first, second = box.admit("a"), box.admit("b")
        before = asyncio.get_running_loop().time()
        for key in (first, second):
            attempt = await box.engine.attempt(key)
            await asyncio.sleep(0.005)  # it is told in milliseconds
            attempt.finish()
            await box.final(key.id)
        spent = asyncio.get_running_loop().time() - before
        assert 0 < box.load.busy_s <= spent + 0.01


@pytest.mark.parametrize(("station", "pictures"), [("text", 0), ("vision", 1)])
def test_an_engine_practises_on_what_it_is_for(station: str, pictures: int) -> None:
    made = exercise(station, "1")  # type: ignore[arg-type]
    assert (len(made.pictures), made.private) == (pictures, True)
