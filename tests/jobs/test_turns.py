"""What is remembered of cameras, whose names clients make up."""

from agent.admission.turns import _MAX_CAMERAS, Turns
from agent.contract.jobs import Frame, Job, Message


def frame(camera: str) -> Job:
    return Job(
        client="c",
        id=camera,
        camera=camera,
        frame=Frame(min_interval_s=5),
        messages=(Message(role="user", content="x"),),
    )


def test_of_too_many_cameras_the_one_whose_turn_was_longest_ago_is_forgotten_and_may_start_at_once() -> None:
    turns = Turns()
    for number in range(_MAX_CAMERAS + 1):
        turns.took(frame(f"cam{number}"), now=100.0)

    assert turns.last(("c", "cam0")) is None
    assert turns.due_at(frame("cam0")) < 0
    assert turns.last(("c", "cam1")) == 100.0
    assert turns.due_at(frame("cam1")) == 105.0
