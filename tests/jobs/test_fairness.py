"""Nobody starves, and nobody takes everything: ageing, clients' turns, the places that are text's and each client's."""

import itertools

import pytest

from agent.admission import Queue
from agent.admission.queue import _PROMOTED_AT_ONCE
from agent.contract.errors import Code, JobError
from tests.jobs.tickets import frame, job, started, ticket

# How long a job waits for each step up.
PATIENCE_S = 120.0


def names(queue: Queue, limit: int = 99, now: float = 0.0) -> list[str]:
    return [each.job.id for each in queue.first(limit, now)]


def refused(error: JobError | None) -> str | None:
    return None if error is None else error.message.partition(":")[0]


# Ageing


def test_a_job_keeps_its_priority_for_two_minutes() -> None:
    queue = Queue(9)
    queue.push(ticket("low", priority="low"))
    queue.push(ticket("normal", at=100.0))
    assert names(queue, now=PATIENCE_S - 1) == ["normal", "low"]


def test_a_job_that_has_waited_for_two_minutes_is_equal_to_those_of_the_next_priority() -> None:
    queue = Queue(9)
    queue.push(ticket("low", priority="low"))
    queue.push(ticket("normal", at=100.0))
    assert names(queue, now=PATIENCE_S) == ["low", "normal"]


def test_a_job_rises_one_priority_at_a_time() -> None:
    queue = Queue(9)
    queue.push(ticket("low", priority="low"))
    queue.push(ticket("high", at=100.0, priority="high"))
    assert names(queue, now=2 * PATIENCE_S - 1) == ["high", "low"]
    assert names(queue, now=2 * PATIENCE_S) == ["low", "high"]


def test_those_of_a_priority_that_came_earlier_stay_before_one_that_rose_to_it() -> None:
    queue = Queue(9)
    queue.push(ticket("normal", at=0.0))
    queue.push(ticket("low", at=1.0, priority="low"))
    assert names(queue, now=200.0) == ["normal", "low"]


def test_a_low_job_starts_though_high_ones_never_end() -> None:
    queue = Queue(9)
    queue.push(ticket("low", priority="low"))
    for now in itertools.count(1):
        queue.push(ticket(f"high{now}", at=float(now), priority="high"))
        if started(queue, now=float(now), most=1) == ["low"]:
            break
    assert now <= 2 * PATIENCE_S + 1


def test_a_camera_whose_frames_are_always_replaced_rises_as_if_one_had_waited() -> None:
    queue = Queue(9)
    for now in range(int(PATIENCE_S)):
        queue.push(frame(f"f{now}", "porch", at=float(now), priority="low"))
    queue.push(ticket("asked", at=100.0, camera="gate"))
    assert names(queue, now=PATIENCE_S) == [f"f{PATIENCE_S - 1:.0f}", "asked"]


def test_a_job_that_rose_counts_among_the_texts_in_a_row_of_its_new_priority() -> None:
    queue = Queue(9)
    queue.push(ticket("low", priority="low"))
    for number in range(3):
        queue.push(ticket(f"t{number}", at=100.0))
    queue.push(ticket("p", at=100.0, camera="porch"))
    assert started(queue, now=PATIENCE_S) == ["low", "t0", "t1", "p", "t2"]


def test_a_job_that_rose_can_be_taken_out() -> None:
    queue = Queue(9)
    queue.push(ticket("low", priority="low"))
    names(queue, now=PATIENCE_S)
    queue.remove(job("low").key)
    assert (names(queue, now=PATIENCE_S), len(queue)) == ([], 0)


def test_of_very_many_that_rise_at_once_the_event_loop_sees_only_some_at_a_time_the_longest_there_first() -> None:
    queue = Queue(999)
    for number in range(2 * _PROMOTED_AT_ONCE):
        queue.push(ticket(f"low{number}", priority="low"))
    queue.push(ticket("normal", at=100.0))
    for _ in range(2):  # what was told of a moment holds for it
        assert names(queue, 999, now=200.0).index("normal") == _PROMOTED_AT_ONCE
    assert names(queue, 999, now=201.0).index("normal") == 2 * _PROMOTED_AT_ONCE


# Clients' turns


def test_clients_take_turns_and_each_ones_texts_start_in_order_of_arrival() -> None:
    queue = Queue(99)
    for number in range(3):
        queue.push(ticket(f"a{number}", client="a"))
    queue.push(ticket("b0", client="b"))
    queue.push(ticket("b1", client="b"))
    assert started(queue) == ["a0", "b0", "a1", "b1", "a2"]


def test_a_client_that_floods_holds_up_anothers_first_text_by_one_of_its_own_at_most() -> None:
    queue = Queue(99)
    for number in range(50):
        queue.push(ticket(f"a{number}", client="a"))
    started(queue, now=1.0, most=5)
    queue.push(ticket("b", client="b", at=2.0))
    assert started(queue, now=3.0, most=2) == ["a5", "b"]


def test_the_client_whose_last_start_is_longest_ago_is_next() -> None:
    queue = Queue(99)
    for now, client in enumerate("bac"):
        queue.push(ticket(client, client=client))
        started(queue, now=float(now))
    for client in "abc":
        queue.push(ticket(client, client=client, at=9.0))
    assert started(queue, now=9.0) == ["b", "a", "c"]


def test_priority_goes_before_turns() -> None:
    queue = Queue(9)
    for number in range(3):
        queue.push(ticket(f"a{number}", client="a", priority="high"))
    queue.push(ticket("b", client="b"))
    assert started(queue) == ["a0", "a1", "a2", "b"]


def test_a_turn_counts_in_every_priority() -> None:
    queue = Queue(9)
    queue.push(ticket("a-high", client="a", priority="high"))
    queue.push(ticket("a", client="a"))
    queue.push(ticket("b", client="b"))
    assert started(queue) == ["a-high", "b", "a"]


def test_a_text_that_was_received_earlier_but_comes_later_keeps_its_place_among_its_clients() -> None:
    queue = Queue(9)
    queue.push(ticket("new", at=5.0))
    queue.push(ticket("back-from-the-cloud", at=1.0))
    assert started(queue, now=6.0) == ["back-from-the-cloud", "new"]


# Who is next


def test_who_starts_first_is_told_and_goes_on_waiting() -> None:
    queue = Queue(9)
    for name in "abc":
        queue.push(ticket(name))
    assert (names(queue, 2), len(queue), started(queue)) == (["a", "b"], 3, ["a", "b", "c"])


def test_a_suspect_is_told_first() -> None:
    queue = Queue(9)
    queue.push(ticket("a", priority="high"))
    queue.push(ticket("suspect", deaths=1))
    assert (names(queue), names(queue, 1)) == (["suspect", "a"], ["suspect"])


def test_before_a_text_of_a_client_that_had_no_turn_for_long_stand_few() -> None:
    queue = Queue(99)
    queue.push(ticket("b0", client="b"))
    for number in range(20):
        queue.push(ticket(f"a{number}", client="a"))
    started(queue, now=1.0, most=1)
    started(queue, now=2.0, most=5)
    tickets, count = queue.before(job("b1", client="b"), 32, 3.0)
    assert ([each.job.id for each in tickets], count) == ([], 0)


def test_before_a_high_job_stand_the_high_ones_alone() -> None:
    queue = Queue(9)
    for name, priority in {"a": "normal", "b": "high", "c": "low"}.items():
        queue.push(ticket(name, priority=priority))
    tickets, count = queue.before(job("new", priority="high"), 32, 0.0)
    assert ([each.job.id for each in tickets], count) == (["b"], 1)


def test_behind_more_than_it_is_asked_for_a_job_is_told_the_first_and_how_many() -> None:
    queue = Queue(99)
    for number in range(40):
        queue.push(ticket(f"t{number}"))
    tickets, count = queue.before(job("new"), 32, 0.0)
    assert ([each.job.id for each in tickets], count) == ([f"t{number}" for number in range(32)], 40)


def test_a_frame_is_told_the_place_of_the_one_that_it_would_replace() -> None:
    queue = Queue(9)
    queue.push(ticket("asked", camera="gate"))
    queue.push(frame("old", "porch"))
    queue.push(ticket("more", camera="gate"))
    tickets, count = queue.before(frame("new", "porch").job, 32, 0.0)
    assert ([each.job.id for each in tickets], count, len(queue)) == (["asked"], 1, 3)


# The bounds


@pytest.mark.parametrize(("places", "most"), [(1, 1), (2, 2), (3, 3), (4, 3), (64, 48)])
def test_the_last_quarter_of_the_places_is_not_for_cameras(places: int, most: int) -> None:
    queue = Queue(places, places)
    assert [queue.hold(job(f"p{n}", camera=f"cam{n}")) is None for n in range(places + 1)].count(True) == most


@pytest.mark.parametrize(("places", "most"), [(1, 1), (2, 2), (3, 3), (4, 3), (64, 48)])
def test_a_client_may_have_three_quarters_of_the_places_by_default(places: int, most: int) -> None:
    queue = Queue(places)
    assert [queue.hold(job(f"t{n}")) is None for n in range(places + 1)].count(True) == most


def test_the_places_that_cameras_may_not_have_are_left_for_text() -> None:
    queue = Queue(4, 4)
    for number in range(3):
        queue.push(ticket(f"p{number}", camera=f"cam{number}"))
    assert refused(queue.hold(job("p", camera="gate"))) == "3 jobs of cameras wait here already, and at most 3 may"
    assert queue.hold(job("t")) is None


def test_text_may_take_every_place() -> None:
    queue = Queue(4, 4)
    assert [queue.hold(job(f"t{n}")) for n in range(4)] == [None] * 4


def test_a_client_is_refused_beyond_its_places_and_another_is_not() -> None:
    queue = Queue(9, 1)
    queue.push(ticket("a"))
    assert refused(queue.hold(job("b"))) == "1 jobs of this client wait here already, and at most 1 may"
    assert queue.hold(job("b", client="d")) is None


def test_places_that_are_held_count_as_their_clients_and_as_cameras() -> None:
    queue = Queue(4, 3)
    for number in range(3):
        assert queue.hold(job(f"p{number}", camera=f"cam{number}")) is None
    assert refused(queue.hold(job("p", client="d", camera="gate"))) is not None
    assert refused(queue.hold(job("t"))) is not None


@pytest.mark.parametrize("bounds", [(1, 1), (4, 1)])
def test_a_frame_that_replaces_one_needs_no_place_of_its_clients(bounds: tuple[int, int]) -> None:
    queue = Queue(*bounds)
    queue.push(frame("old", "porch"))
    assert queue.hold(frame("new", "porch").job) is None


def test_recovered_jobs_are_let_in_beyond_every_bound() -> None:
    queue = Queue(1, 1)
    for number in range(3):
        queue.push(ticket(f"t{number}"))
    assert (len(queue), queue.share) == (3, 1.0)


def test_a_refusal_that_is_asked_for_holds_nothing() -> None:
    queue = Queue(1)
    assert (queue.refusal(job("a")), queue.refusal(job("b")), queue.share) == (None, None, 0.0)


@pytest.mark.parametrize(("foreseen", "told"), [(None, 1.0), (0.0, 1.0), (4.5, 5.0)])
def test_a_refusal_says_when_a_place_is_foreseen_in_whole_seconds(foreseen: float | None, told: float) -> None:
    queue = Queue(1)
    queue.push(ticket("a"))
    error = queue.refusal(job("b"), foreseen)
    assert error is not None
    assert (error.code, error.retry_after_s) == (Code.QUEUE_FULL, told)
