"""Cameras in the queue: the latest frame wins, each has its turn, and none holds up what is not its own."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.admission import Queue, Ticket
from agent.contract.errors import Code
from agent.contract.jobs import Job, Key
from tests.jobs.tickets import frame, job, started, ticket

_MIB = bytes(1 << 20)


def hold(queue: Queue, each: Job) -> Code | None:
    refused = queue.hold(each)
    return None if refused is None else refused.code


def test_a_newer_frame_takes_the_place_of_one_that_waits() -> None:
    queue, old = Queue(9), frame("old", "porch")
    queue.push(old)
    assert queue.push(frame("new", "porch")) == (0, old)
    assert started(queue) == ["new"]


def test_frames_of_two_cameras_wait_side_by_side() -> None:
    queue = Queue(9)
    queue.push(frame("a", "porch"))
    assert queue.push(frame("b", "gate")).superseded is None


def test_frames_of_two_clients_wait_side_by_side_though_their_cameras_have_one_name() -> None:
    queue, other = Queue(9), frame("b", "porch")
    queue.push(frame("a", "porch"))
    assert queue.push(Ticket(other.job.model_copy(update={"client": "d"}), 0.0)).superseded is None


def test_a_newer_frame_wins_whatever_the_priorities() -> None:
    queue, old = Queue(9), frame("old", "porch", priority="high")
    queue.push(old)
    assert queue.push(frame("new", "porch", priority="low")).superseded == old


def test_a_json_job_of_a_camera_is_never_superseded() -> None:
    queue = Queue(9)
    queue.push(ticket("asked", camera="porch"))
    assert queue.push(frame("new", "porch")).superseded is None
    assert started(queue) == ["asked", "new"]


def test_a_json_job_supersedes_no_frame() -> None:
    queue = Queue(9)
    queue.push(frame("old", "porch"))
    assert queue.push(ticket("asked", camera="porch")).superseded is None


def test_a_suspect_frame_is_not_superseded() -> None:
    queue = Queue(9)
    queue.push(frame("suspect", "porch", deaths=1))
    assert queue.push(frame("new", "porch")).superseded is None


def test_a_suspect_frame_supersedes_none() -> None:
    queue = Queue(9)
    queue.push(frame("new", "porch"))
    assert queue.push(frame("suspect", "porch", deaths=1)).superseded is None


def test_a_frame_that_started_is_not_superseded() -> None:
    queue = Queue(9)
    queue.push(frame("old", "porch"))
    started(queue)
    assert queue.push(frame("new", "porch")).superseded is None


def test_a_frame_that_was_canceled_is_not_superseded() -> None:
    queue = Queue(9)
    queue.push(frame("old", "porch"))
    queue.remove(Key("c", "old"))
    assert queue.push(frame("new", "porch")).superseded is None


def test_of_four_starts_one_is_a_cameras() -> None:
    queue = Queue(99)
    for number in range(7):
        queue.push(ticket(f"t{number}"))
        queue.push(ticket(f"p{number}", camera="porch"))
    assert started(queue, most=9) == ["t0", "t1", "t2", "p0", "t3", "t4", "t5", "p1", "t6"]


def test_a_camera_that_comes_after_many_texts_is_next() -> None:
    queue = Queue(99)
    for number in range(9):
        queue.push(ticket(f"t{number}"))
    started(queue, most=8)
    queue.push(frame("p", "porch"))
    assert started(queue) == ["p", "t8"]


def test_text_goes_on_where_no_camera_waits() -> None:
    queue = Queue(99)
    for number in range(5):
        queue.push(ticket(f"t{number}"))
    assert started(queue) == ["t0", "t1", "t2", "t3", "t4"]


def test_a_camera_of_a_lower_priority_waits_for_every_text_above_it() -> None:
    queue = Queue(99)
    queue.push(frame("p", "porch", priority="low"))
    for number in range(5):
        queue.push(ticket(f"t{number}"))
    assert started(queue) == ["t0", "t1", "t2", "t3", "t4", "p"]


def test_cameras_take_turns_however_much_each_asks() -> None:
    queue = Queue(99)
    for number in range(3):
        queue.push(ticket(f"p{number}", camera="porch"))
    queue.push(ticket("g0", camera="gate"))
    queue.push(ticket("g1", camera="gate"))
    order = [queue.pop(float(now), 0, 1, suspect_runs=False) for now in range(5)]
    assert [each.job.id for each in order if each] == ["p0", "g0", "p1", "g1", "p2"]


def test_a_new_camera_waits_since_it_came_and_not_for_ever() -> None:
    queue = Queue(9)
    queue.push(frame("p0", "porch"))
    started(queue, now=1.0)
    queue.push(frame("p1", "porch"))
    queue.push(replace(frame("g0", "gate"), received_at=2.0))
    assert started(queue, now=3.0, most=1) == ["p1"]
    queue.push(frame("p2", "porch"))
    queue.push(replace(frame("g1", "gate"), received_at=4.0))
    assert started(queue, now=5.0) == ["g1", "p2"]


def test_names_that_somebody_makes_up_do_not_starve_a_camera() -> None:
    queue, starts = Queue(9), []
    for now in range(1, 20):
        queue.push(replace(frame(f"p{now}", "porch"), received_at=now))
        queue.push(replace(frame(f"x{now}", f"made-up-{now}"), received_at=now))
        starts += started(queue, now=float(now), most=1)
    assert sum(name.startswith("p") for name in starts) >= 2


def test_a_new_frame_keeps_its_cameras_place() -> None:
    queue = Queue(9)
    queue.push(frame("p0", "porch"))
    queue.push(frame("g0", "gate"))
    queue.push(frame("p1", "porch"))
    assert started(queue) == ["p1", "g0"]


def test_a_camera_that_waits_for_nothing_loses_its_place() -> None:
    queue = Queue(9)
    queue.push(frame("p0", "porch"))
    queue.remove(Key("c", "p0"))
    queue.push(frame("g0", "gate"))
    queue.push(frame("p1", "porch"))
    assert started(queue) == ["g0", "p1"]


def test_a_frame_waits_until_its_cameras_interval_is_over() -> None:
    queue = Queue(9)
    queue.push(frame("p0", "porch", 2.0))
    started(queue, now=5.0)
    queue.push(frame("p1", "porch", 2.0))
    assert (started(queue, now=6.9), started(queue, now=7.0)) == ([], ["p1"])


def test_the_next_event_is_the_end_of_a_cameras_interval() -> None:
    queue = Queue(9)
    queue.push(frame("p0", "porch", 2.0))
    started(queue, now=5.0)
    queue.push(ticket("t", deadline=8.0))
    queue.push(frame("p1", "porch", 2.0))
    assert queue.next_event(6.0) == 7.0


def test_a_frame_that_is_due_is_no_event_to_wait_for() -> None:
    queue = Queue(9)
    queue.push(frame("p0", "porch", 2.0))
    started(queue, now=5.0)
    queue.push(frame("p1", "porch", 2.0))
    assert queue.next_event(7.0) is None


def test_a_frame_that_waits_for_its_interval_is_replaced_by_a_newer_one() -> None:
    queue = Queue(9)
    queue.push(frame("p0", "porch", 2.0))
    started(queue, now=5.0)
    queue.push(frame("p1", "porch", 2.0))
    queue.push(frame("p2", "porch", 2.0))
    assert started(queue, now=7.0) == ["p2"]


def test_a_frame_that_is_not_due_holds_up_nobody() -> None:
    queue = Queue(9)
    queue.push(frame("p0", "porch", 2.0, priority="high"))
    started(queue)
    queue.push(frame("p1", "porch", 2.0, priority="high"))
    queue.push(ticket("asked", camera="porch", priority="high"))
    queue.push(frame("g0", "gate", 2.0, priority="high"))
    queue.push(ticket("text"))
    assert sorted(started(queue, now=1.0)) == ["asked", "g0", "text"]


def test_a_json_job_does_not_begin_its_cameras_interval() -> None:
    queue = Queue(9)
    queue.push(frame("p0", "porch", 2.0))
    started(queue, now=5.0)
    queue.push(ticket("asked", camera="porch"))
    started(queue, now=6.0)
    queue.push(frame("p1", "porch", 2.0))
    assert started(queue, now=7.0) == ["p1"]


def test_what_is_remembered_of_cameras_is_bounded() -> None:
    queue = Queue(9)
    for number in range(3000):
        queue.push(frame(f"f{number}", f"made-up-{number}"))
        started(queue, now=float(number))
    assert len(queue._turns._cameras) <= 1024


def test_the_1024_cameras_that_had_a_turn_last_are_remembered() -> None:
    queue = Queue(9)
    for now, number in enumerate([*range(1024), 0, 1024]):
        queue.push(frame(f"f{now}", f"made-up-{number}"))
        started(queue, now=float(now))
    queue.push(frame("known", "made-up-0", 1e6))
    queue.push(frame("forgotten", "made-up-1", 1e6))
    assert started(queue, now=1026.0) == ["forgotten"]


def test_a_frame_that_replaces_one_is_let_into_a_full_queue() -> None:
    queue = Queue(2)
    queue.push(frame("p0", "porch"))
    queue.push(ticket("t"))
    assert hold(queue, frame("p1", "porch").job) is None
    assert queue.push(frame("p1", "porch")).ahead == 1


def test_a_frame_of_another_camera_is_refused_by_a_full_queue() -> None:
    queue = Queue(1)
    queue.push(frame("p0", "porch"))
    assert hold(queue, frame("g0", "gate").job) is Code.QUEUE_FULL


def test_pictures_that_would_fill_the_memory_are_refused_with_the_numbers() -> None:
    queue, pictures = Queue(99), (_MIB,) * 40
    queue.push(ticket("a", pictures=pictures))
    error = queue.hold(job("b", pictures=pictures))
    assert error is not None
    assert error.message == (
        "41,943,040 bytes of pictures wait here already, and at most 67,108,864 may: try again later, under a new id"
    )


def test_pictures_on_their_way_to_disk_count() -> None:
    queue = Queue(99)
    assert hold(queue, job("a", pictures=(_MIB,) * 64)) is None
    assert hold(queue, job("b", pictures=(b"1",))) is Code.QUEUE_FULL


def test_a_released_place_gives_its_memory_back() -> None:
    queue, large = Queue(99), job("a", pictures=(_MIB,) * 64)
    hold(queue, large)
    queue.release(large)
    assert hold(queue, large) is None


def test_pictures_of_a_job_that_started_count_no_more() -> None:
    queue, large = Queue(99), ticket("a", pictures=(_MIB,) * 64)
    queue.push(large)
    started(queue)
    assert hold(queue, large.job) is None


def test_a_frame_frees_the_memory_of_the_one_it_replaces() -> None:
    queue = Queue(99)
    queue.push(frame("p0", "porch", pictures=(_MIB,) * 64))
    assert hold(queue, frame("p1", "porch", pictures=(_MIB,) * 64).job) is None
    assert hold(queue, frame("g0", "gate", pictures=(b"1",)).job) is Code.QUEUE_FULL


def test_text_is_let_in_however_many_pictures_wait() -> None:
    queue = Queue(99)
    queue.push(ticket("recovered", pictures=(_MIB,) * 80))
    assert hold(queue, job("t")) is None


kinds = st.sampled_from([None, "porch", "gate"])


@given(st.integers(0, 5), st.lists(kinds, max_size=30), kinds)
def test_the_position_of_a_text_is_exact_and_that_of_a_picture_never_too_low(
    texts_before: int, waiting: list[str | None], camera: str | None
) -> None:
    queue = Queue(99)
    for number in range(texts_before):
        queue.push(ticket(f"before{number}"))
    started(queue)
    for number, each in enumerate(waiting):
        queue.push(ticket(f"j{number}", camera=each))
    ahead = queue.push(ticket("last", camera=camera)).ahead
    order = started(queue).index("last")
    assert order == ahead if camera is None else order <= ahead
