"""What is remembered of cameras and clients, whose names clients make up."""

import pytest

from agent.admission.turns import _MAX_REMEMBERED, Turns
from agent.contract.jobs import Frame, Job, Message


def frame(camera: str) -> Job:
    return Job(
        client="c",
        id=camera,
        camera=camera,
        frame=Frame(min_interval_s=5),
        messages=(Message(role="user", content="x"),),
    )


def text(client: str) -> Job:
    return Job(client=client, id="t", messages=(Message(role="user", content="x"),))


def test_of_too_many_cameras_the_one_whose_turn_was_longest_ago_is_forgotten_and_may_start_at_once() -> None:
    turns = Turns()
    for number in range(_MAX_REMEMBERED + 1):
        turns.took(frame(f"cam{number}"), "normal", now=100.0)

    assert turns.last(("c", "cam0")) is None
    assert turns.due_at(frame("cam0")) < 0
    assert turns.last(("c", "cam1")) == 100.0
    assert turns.due_at(frame("cam1")) == 105.0


def test_of_too_many_clients_the_one_whose_turn_was_longest_ago_is_forgotten() -> None:
    turns = Turns()
    for number in range(_MAX_REMEMBERED + 1):
        turns.took(text(f"c{number}"), "normal", now=100.0)

    assert (turns.last(("c0", None)), turns.last(("c1", None))) == (None, 100.0)


@pytest.mark.parametrize("flood", ["texts", "frames"])
def test_names_that_are_made_up_for_one_kind_forget_none_of_the_other(flood: str) -> None:
    turns = Turns()
    turns.took(text("c"), "normal", now=1.0)
    turns.took(frame("porch"), "normal", now=1.0)
    for number in range(_MAX_REMEMBERED + 1):
        turns.took(text(f"x{number}") if flood == "texts" else frame(f"x{number}"), "normal", now=2.0)

    assert turns.last(("c", "porch") if flood == "texts" else ("c", None)) == 1.0
