"""The queue: who may wait, who is next, whose time is over."""

from hypothesis import given
from hypothesis import strategies as st

from agent.admission import Pace, Queue, Ticket
from agent.contract.errors import Code, JobError
from agent.contract.jobs import Job, Key, Message, Priority


def ticket(name: str, priority: Priority = "normal", deadline: float | None = None, deaths: int = 0) -> Ticket:
    job = Job(client="c", id=name, messages=(Message(role="user", content="x"),), priority=priority)
    return Ticket(job, received_at=0.0, deadline=deadline, deaths=deaths)


def drained(queue: Queue) -> list[str]:
    names = []
    while (taken := queue.pop(0, 1, suspect_runs=False)) is not None:
        names.append(taken.job.id)
    return names


def test_jobs_start_by_priority_then_arrival() -> None:
    queue = Queue(9)
    for name, priority in {"a": "low", "b": "normal", "c": "high", "d": "normal"}.items():
        queue.push(ticket(name, priority))  # type: ignore[arg-type]
    assert drained(queue) == ["c", "b", "d", "a"]


def test_the_position_counts_jobs_that_start_before() -> None:
    queue = Queue(9)
    queue.push(ticket("a", "low"))
    queue.push(ticket("b", "high"))
    assert queue.push(ticket("c", "normal")) == 1


def test_a_full_queue_refuses_with_a_time_to_try_again() -> None:
    queue, pace = Queue(1), Pace()
    pace.ran(9.0)
    queue.push(ticket("a"))
    error = queue.hold(pace, slots=2)
    assert error is not None
    assert (error.code, error.retry_after_s) == (Code.QUEUE_FULL, 5.0)


def test_places_held_for_jobs_on_their_way_to_disk_count() -> None:
    queue = Queue(1)
    assert queue.hold(Pace(), 1) is None
    assert isinstance(queue.hold(Pace(), 1), JobError)


def test_a_released_place_is_free_again() -> None:
    queue = Queue(1)
    queue.hold(Pace(), 1)
    queue.release()
    assert not queue.full


def test_nothing_starts_while_all_slots_run() -> None:
    queue = Queue(9)
    queue.push(ticket("a"))
    assert queue.pop(2, 2, suspect_runs=False) is None


def test_a_suspect_starts_first_and_only_alone() -> None:
    queue = Queue(9)
    queue.push(ticket("a", "high"))
    queue.push(ticket("suspect", deaths=1))
    assert queue.pop(1, 4, suspect_runs=False) is None
    taken = queue.pop(0, 4, suspect_runs=False)
    assert taken is not None
    assert taken.job.id == "suspect"


def test_nothing_starts_beside_a_suspect() -> None:
    queue = Queue(9)
    queue.push(ticket("a"))
    assert queue.pop(1, 4, suspect_runs=True) is None


def test_a_removed_job_never_starts() -> None:
    queue = Queue(9)
    queue.push(ticket("a"))
    queue.push(ticket("b"))
    queue.remove(Key("c", "a"))
    assert drained(queue) == ["b"]


def test_expired_jobs_are_taken_out_and_the_others_stay() -> None:
    queue = Queue(9)
    queue.push(ticket("late", deadline=5.0))
    queue.push(ticket("soon", deadline=6.0))
    queue.push(ticket("never"))
    assert [each.job.id for each in queue.expired(5.0)] == ["late"]
    assert drained(queue) == ["soon", "never"]


def test_a_suspect_expires_too() -> None:
    queue = Queue(9)
    queue.push(ticket("late", deadline=5.0, deaths=1))
    assert [each.job.id for each in queue.expired(9.0)] == ["late"]


def test_the_next_deadline_is_the_earliest() -> None:
    queue = Queue(9)
    queue.push(ticket("a", deadline=7.0))
    queue.push(ticket("b", deadline=5.0))
    assert queue.next_deadline() == 5.0


def test_deadlines_of_jobs_that_ended_do_not_pile_up() -> None:
    queue = Queue(9)
    for number in range(10_000):
        queue.push(ticket(f"j{number}", deadline=1e6))
        queue.pop(0, 1, suspect_runs=False)
    assert len(queue._deadlines) < 100


def test_a_deadline_does_not_end_a_later_job_of_the_same_name() -> None:
    queue = Queue(9)
    queue.push(ticket("a", deadline=5.0))
    queue.pop(0, 1, suspect_runs=False)
    queue.push(ticket("a"))
    assert queue.expired(6.0) == []


def test_a_refusal_counts_the_places_that_are_held() -> None:
    queue = Queue(2)
    queue.hold(Pace(), 1)
    queue.hold(Pace(), 1)
    error = queue.hold(Pace(), 1)
    assert error is not None
    assert error.message == "2 jobs wait here already, and at most 2 may: try again later, under a new id"


def test_the_wait_is_unknown_until_a_job_was_measured() -> None:
    assert Pace().wait_s(3, 1) is None


def test_the_wait_follows_the_measured_mean() -> None:
    pace = Pace()
    pace.ran(10.0)
    pace.ran(5.0)
    assert pace.wait_s(2, 4) == 4.5


operations = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 9), st.sampled_from(["low", "normal", "high"]), st.integers(0, 2)),
        st.tuples(st.just("pop"), st.just(0), st.just("low"), st.just(0)),
        st.tuples(st.just("remove"), st.integers(0, 9), st.just("low"), st.just(0)),
        st.tuples(st.just("expire"), st.integers(0, 9), st.just("low"), st.just(0)),
    ),
    max_size=40,
)


@given(operations)
def test_every_job_that_entered_leaves_exactly_once(steps: list[tuple[str, int, Priority, int]]) -> None:
    queue, inside, left = Queue(99), set[str](), list[str]()
    for number, (what, argument, priority, deaths) in enumerate(steps):
        if what == "push":
            queue.push(ticket(f"j{number}", priority, deadline=float(argument), deaths=deaths))
            inside.add(f"j{number}")
            continue
        match what:
            case "pop":
                out = [queue.pop(0, 1, suspect_runs=False)]
            case "remove":
                out = [queue.remove(Key("c", f"j{argument}"))]
            case _:
                out = list[Ticket | None](queue.expired(float(argument)))
        left += [each.job.id for each in out if each is not None]
    left += [each.job.id for each in queue.clear()]
    assert sorted(left) == sorted(inside)
    assert len(queue) == 0
