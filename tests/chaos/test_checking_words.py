"""The rules of the checker about a job's events and words, seen to fail as in ``test_checking.py``."""

from dataclasses import replace

import pytest

from agent.contract.jobs import Key
from tests.chaos.checking import check
from tests.chaos.history import History
from tests.chaos.made_up import KEY, chunk, final, logged, rules, saying, told, went_well


@pytest.fixture
def history() -> History:
    return went_well()


def test_an_attempt_that_goes_down_is_out_of_order(history: History) -> None:
    history.sent.insert(0, told("state", {"state": "restarted", "attempt": 2}))
    assert rules(history) == {"out of order"}


def test_an_event_after_the_final_is_out_of_order(history: History) -> None:
    history.sent.append(told("state", {"state": "started", "attempt": 1}))
    assert rules(history) == {"out of order"}


def test_a_gap_at_the_beginning_is_incomplete(history: History) -> None:
    del history.sent[0]
    assert rules(history) == {"incomplete"}


@pytest.mark.parametrize("lost", [1, 2])
def test_a_tail_that_is_missing_is_incomplete(history: History, lost: int) -> None:
    for seen in (history.sent, history.heard):
        del seen[2 - lost : 2]
    assert rules(history) == {"incomplete"}


def test_a_tail_may_be_missing_where_the_link_was_made_after_the_start(history: History) -> None:
    history.connected[1] = 10.5
    for seen in (history.sent, history.heard):
        del seen[1]
    assert check(history) == []


def test_a_gap_on_one_connection_is_incomplete(history: History) -> None:
    history.sent.insert(2, told("chunk", chunk(3, "four")))
    history.sent[-1] = told("final", final(seq=4))
    history.heard[-1] = told("final", final(seq=4), connection=0)
    assert rules(history) == {"incomplete"}


def test_a_gap_may_be_where_the_link_was_lost(history: History) -> None:
    history.sent = [told("chunk", chunk(0, "one ")), told("final", final(seq=3), connection=2)]
    history.sent.insert(1, told("chunk", chunk(2, "two"), connection=2))
    history.heard = [told("final", final(seq=3), connection=0)]
    assert check(history) == []


@pytest.mark.parametrize("connection", [0, 1])
def test_a_chunk_that_comes_twice_is_out_of_order(history: History, connection: int) -> None:
    (history.sent if connection else history.heard).insert(1, told("chunk", chunk(0, "one "), connection=connection))
    assert rules(history) == {"out of order"}


def test_the_rest_of_an_earlier_connection_may_be_read_late(history: History) -> None:
    history.sent = [told("final", final(), connection=2), *history.sent[:2]]
    assert check(history) == []


def test_two_texts_for_one_chunk_are_spliced(history: History) -> None:
    history.heard[1] = told("chunk", chunk(1, "three"), connection=0)
    assert rules(history) == {"spliced"}


def test_chunks_that_are_not_the_text_are_spliced(history: History) -> None:
    for seen in (history.sent, history.heard):
        seen[-1] = saying(seen[-1], text="one two three")
    assert rules(history) == {"spliced"}


def test_a_chunk_beyond_those_that_the_final_counts_is_spliced(history: History) -> None:
    for seen in (history.sent, history.heard):
        seen[-1] = saying(seen[-1], seq=1)
    assert rules(history) == {"spliced"}


def test_a_text_may_be_longer_than_its_chunks_where_the_link_was_lost(history: History) -> None:
    history.sent = [*history.sent[:2], told("final", final("one two three"), connection=2)]
    history.heard = [told("final", final("one two three"), connection=0)]
    assert check(history) == []


def test_an_earlier_attempt_that_said_something_else_is_spliced(history: History) -> None:
    second_attempt(history, "zero ")
    assert rules(history) == {"spliced"}


def test_an_earlier_attempt_that_was_drawn_by_chance_may_say_something_else(history: History) -> None:
    second_attempt(history, "zero ")
    history.sampled = {KEY}
    assert check(history) == []


def test_a_text_by_chance_that_goes_on_where_another_attempt_stopped_is_spliced(history: History) -> None:
    second_attempt(history, "zero ")
    history.sampled = {KEY}
    for seen in (history.sent, history.heard):
        seen[-1] = saying(seen[-1], text="zero one two")
    assert rules(history) == {"spliced"}


def second_attempt(history: History, said: str) -> None:
    """Let the job have been in a second attempt, after a first that said something."""
    history.sent = [saying(each, attempt=2) for each in history.sent]
    history.heard = [saying(each, attempt=2) for each in history.heard]
    history.sent.insert(0, told("chunk", chunk(0, said)))
    history.log.insert(1, logged("job.started", 10.5, attempt=2))


@pytest.mark.parametrize(("text", "expected"), [("one two", set()), ("one three", {"recited"})])
def test_a_text_that_is_another_when_the_model_is_left_alone_is_recited(
    history: History, text: str, expected: set[str]
) -> None:
    again = Key(KEY.client, "again-j1")
    history.recited = {KEY: again}
    history.asked[again] = [30.0]
    history.heard.append(replace(told("final", final(text), at=31.0, connection=0), key=again))
    history.log.append(logged("job.started", 30.0, attempt=1) | {"id": again.id})
    assert rules(history) == expected
