"""The queue: who may wait, who is next, whose time is over."""

from agent.admission import Queue
from agent.admission.order import Order
from agent.contract.errors import Code, JobError
from agent.contract.jobs import Key
from tests.jobs.tickets import job, started, ticket


def test_an_order_shows_its_state() -> None:
    order: Order[str] = Order()
    order.put("b", 2.0)
    order.put("a", 1.0)
    assert repr(order) == "<Order of 2, first mark 1.0>"


def test_jobs_start_by_priority_then_arrival() -> None:
    queue = Queue(9)
    for name, priority in {"a": "low", "b": "normal", "c": "high", "d": "normal"}.items():
        queue.push(ticket(name, priority=priority))
    assert started(queue) == ["c", "b", "d", "a"]


def test_the_position_counts_jobs_that_start_before() -> None:
    queue = Queue(9)
    queue.push(ticket("a", priority="low"))
    queue.push(ticket("b", priority="high"))
    assert queue.push(ticket("c", priority="normal")).ahead == 1


def test_a_full_queue_refuses_with_a_time_to_try_again() -> None:
    queue = Queue(1)
    queue.push(ticket("a"))
    error = queue.hold(job("b"), 4.5)
    assert error is not None
    assert (error.code, error.retry_after_s) == (Code.QUEUE_FULL, 5.0)


def test_places_held_for_jobs_on_their_way_to_disk_count() -> None:
    queue = Queue(1)
    assert queue.hold(job("a")) is None
    assert isinstance(queue.hold(job("a")), JobError)


def test_a_released_place_is_free_again() -> None:
    queue = Queue(1)
    queue.hold(job("a"))
    queue.release(job("a"))
    assert not queue.full


def test_nothing_starts_while_all_slots_run() -> None:
    queue = Queue(9)
    queue.push(ticket("a"))
    assert queue.pop(0.0, 2, 2, suspect_runs=False) is None


def test_a_suspect_starts_first_and_only_alone() -> None:
    queue = Queue(9)
    queue.push(ticket("a", priority="high"))
    queue.push(ticket("suspect", deaths=1))
    assert queue.pop(0.0, 1, 4, suspect_runs=False) is None
    taken = queue.pop(0.0, 0, 4, suspect_runs=False)
    assert taken is not None
    assert taken.job.id == "suspect"


def test_nothing_starts_beside_a_suspect() -> None:
    queue = Queue(9)
    queue.push(ticket("a"))
    assert queue.pop(0.0, 1, 4, suspect_runs=True) is None


def test_a_removed_job_never_starts() -> None:
    queue = Queue(9)
    queue.push(ticket("a"))
    queue.push(ticket("b"))
    queue.remove(Key("c", "a"))
    assert started(queue) == ["b"]


def test_removing_a_job_that_does_not_wait_finds_none() -> None:
    assert Queue(9).remove(Key("c", "a")) is None


def test_expired_jobs_are_taken_out_and_the_others_stay() -> None:
    queue = Queue(9)
    queue.push(ticket("late", deadline=5.0))
    queue.push(ticket("soon", deadline=6.0))
    queue.push(ticket("never"))
    assert [each.job.id for each in queue.expired(5.0)] == ["late"]
    assert started(queue) == ["soon", "never"]


def test_a_suspect_expires_too() -> None:
    queue = Queue(9)
    queue.push(ticket("late", deadline=5.0, deaths=1))
    assert [each.job.id for each in queue.expired(9.0)] == ["late"]


def test_the_next_event_is_the_earliest_deadline() -> None:
    queue = Queue(9)
    queue.push(ticket("a", deadline=7.0))
    queue.push(ticket("b", deadline=5.0))
    assert queue.next_event(0.0) == 5.0


def test_deadlines_of_jobs_that_ended_do_not_pile_up() -> None:
    queue = Queue(9)
    for number in range(1000):
        queue.push(ticket(f"j{number}", deadline=1e6))
        queue.pop(0.0, 0, 1, suspect_runs=False)
    assert len(queue._deadlines._heap) < 100


def test_a_deadline_does_not_end_a_later_job_of_the_same_name() -> None:
    queue = Queue(9)
    queue.push(ticket("a", deadline=5.0))
    queue.pop(0.0, 0, 1, suspect_runs=False)
    queue.push(ticket("a"))
    assert queue.expired(6.0) == []


def test_a_refusal_counts_the_places_that_are_held() -> None:
    queue = Queue(2)
    queue.hold(job("a"))
    queue.hold(job("a"))
    error = queue.hold(job("a"))
    assert error is not None
    assert error.message == "2 jobs wait here already, and at most 2 may: try again later, under a new id"


def test_the_queue_shows_its_state() -> None:
    queue = Queue(9)
    queue.push(ticket("a", pictures=(b"123",)))
    assert f"{queue!r}" == "<Queue waiting=1 held=0 max_jobs=9 bytes=3>"


def test_a_job_that_runs_again_is_its_next_attempt_and_a_suspect() -> None:
    again = ticket("a").again()
    assert (again.attempt, again.deaths) == (2, 1)
