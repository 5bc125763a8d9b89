"""Each rule of the checker, seen to fail on a history that was made up to break it."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.contract.jobs import Key
from agent.publisher import Event
from tests.chaos.checking import check
from tests.chaos.history import BY_AGENT, BY_BROKER, History, Quiet, Told

KEY = Key("five-a", "j1")
QUIET = Quiet(1, 50_000_000, Counter({"socket": 3, "pipe": 6}), 5)


def final(text: str = "one two", *, seq: int = 2, attempt: int = 1, state: str = "SUCCEEDED") -> dict[str, Any]:
    return {"state": state, "text": text, "attempt": attempt, "seq": seq}


def chunk(seq: int, text: str, attempt: int = 1) -> dict[str, Any]:
    return {"attempt": attempt, "seq": seq, "text": text}


def logged(event: str, at: float, **fields: Any) -> dict[str, Any]:
    return {"event": event, "timestamp": datetime.fromtimestamp(at, UTC).isoformat(), **KEY._asdict(), **fields}


def told(kind: Event, body: dict[str, Any], at: float = 11.0, connection: int = 1) -> Told:
    return Told(KEY, kind, body, at, connection)


@pytest.fixture
def history() -> History:
    """One job that was asked for, streamed and answered."""
    found = History(asked={KEY}, acknowledged={KEY}, taken={KEY}, connected={1: 1.0, 2: 20.0}, quiet=[QUIET] * 3)
    for connection in (1, 0):
        (found.sent if connection else found.heard).extend(
            [
                told("chunk", chunk(0, "one "), connection=connection),
                told("chunk", chunk(1, "two"), connection=connection),
                told("final", final(), connection=connection),
            ]
        )
    found.log = [logged("job.started", 10.0, attempt=1), logged("job.finished", 11.0, attempt=1)]
    return found


def rules(history: History) -> set[str]:
    return {violation.rule for violation in check(history)}


def test_a_job_that_went_well_breaks_no_rule(history: History) -> None:
    assert check(history) == []


def test_the_same_final_may_come_twice(history: History) -> None:
    history.sent.append(told("final", final(), at=30.0, connection=2))
    history.heard.append(told("final", final(), at=30.0, connection=0))
    assert check(history) == []


def test_a_final_that_its_client_never_heard_is_unanswered(history: History) -> None:
    history.heard.clear()
    assert rules(history) == {"unanswered"}


@pytest.mark.parametrize("lost", BY_BROKER)
@pytest.mark.parametrize(("kills", "expected"), [(0, {"unanswered"}), (1, set())])
def test_only_a_killed_broker_may_make_a_repeat_needed(
    history: History, lost: str, kills: int, expected: set[str]
) -> None:
    history.repeated[KEY] = lost
    history.struck["broker: kill"] = kills
    assert rules(history) == expected


def test_a_final_under_an_id_that_nobody_used_is_stray(history: History) -> None:
    history.sent.append(replace(history.sent[-1], key=Key("five-a", "made-up")))
    assert rules(history) == {"stray"}


def test_what_the_agent_owed_is_unanswered_though_a_repeat_brought_it(history: History) -> None:
    history.repeated[KEY] = BY_AGENT
    history.struck["broker: kill"] = 1
    assert rules(history) == {"unanswered"}


@pytest.mark.parametrize(
    ("acknowledged", "taken", "expected"),
    [(False, False, BY_BROKER[0]), (True, True, BY_BROKER[1]), (True, False, BY_AGENT)],
)
def test_who_lost_what_is_told_by_the_acknowledgements(acknowledged: bool, taken: bool, expected: str) -> None:
    seen = History(acknowledged={KEY} if acknowledged else set(), taken={KEY} if taken else set())
    assert seen.lost(KEY) == expected


@pytest.mark.parametrize("connection", [0, 2])
def test_two_finals_that_differ_anywhere_are_changed(history: History, connection: int) -> None:
    seen = history.sent if connection else history.heard
    seen.append(told("final", final() | {"timing": {"total_s": 1}}, connection=connection))
    assert rules(history) == {"changed"}


def test_a_start_after_the_final_was_stored_is_run_again(history: History) -> None:
    history.log.append(logged("job.started", 10.5, attempt=1))
    assert rules(history) == {"run again"}


def test_a_start_after_the_final_was_published_is_run_again(history: History) -> None:
    history.log = [logged("job.started", 10.0, attempt=1), logged("job.started", 12.0, attempt=1)]
    assert rules(history) == {"run again"}


def test_a_final_of_an_attempt_before_the_last_is_run_again(history: History) -> None:
    history.log.insert(1, logged("job.started", 10.5, attempt=2))
    assert rules(history) == {"run again"}


def test_an_attempt_that_goes_down_is_out_of_order(history: History) -> None:
    history.sent.insert(0, told("state", {"state": "restarted", "attempt": 2}))
    assert rules(history) == {"out of order"}


def test_an_event_after_the_final_is_out_of_order(history: History) -> None:
    history.sent.append(told("state", {"state": "started", "attempt": 1}))
    assert rules(history) == {"out of order"}


def test_a_gap_at_the_beginning_is_incomplete(history: History) -> None:
    del history.sent[0]
    assert rules(history) == {"incomplete"}


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
        seen[-1] = replace(seen[-1], body=final("one two three"))
    assert rules(history) == {"spliced"}


def test_a_chunk_beyond_those_that_the_final_counts_is_spliced(history: History) -> None:
    for seen in (history.sent, history.heard):
        seen[-1] = replace(seen[-1], body=final(seq=1))
    assert rules(history) == {"spliced"}


def test_a_text_may_be_longer_than_its_chunks_where_the_link_was_lost(history: History) -> None:
    history.sent = [*history.sent[:2], told("final", final("one two three"), connection=2)]
    history.heard = [told("final", final("one two three"), connection=0)]
    assert check(history) == []


def test_an_earlier_attempt_that_said_something_else_is_spliced(history: History) -> None:
    history.sent = [
        *(replace(each, body=each.body | {"attempt": 2}) for each in history.sent),
    ]
    history.heard = [replace(each, body=each.body | {"attempt": 2}) for each in history.heard]
    history.sent.insert(0, told("chunk", chunk(0, "zero ")))
    assert rules(history) == {"spliced"}


@pytest.mark.parametrize(
    "change",
    [{"resident": 60_000_000}, {"files": QUIET.files + Counter({"socket": 1})}, {"threads": 6}, {"pid": 2}],
    ids=lambda change: next(iter(change)),
)
def test_what_does_not_return_to_where_it_was_is_leaked(history: History, change: dict[str, Any]) -> None:
    history.quiet[2] = replace(QUIET, **change)
    assert rules(history) == {"leaked"}


@pytest.mark.parametrize("event", ["service.failed", "request.broke", "job.broke"])
def test_a_defect_in_the_log_is_broken(history: History, event: str) -> None:
    history.log.append(logged(event, 12.0))
    assert rules(history) == {"broken"}


def test_an_exception_in_the_log_is_broken(history: History) -> None:
    history.log.append(logged("mqtt.lost", 12.0, exception="Traceback"))
    assert rules(history) == {"broken"}


def test_a_line_that_is_no_event_is_broken(history: History) -> None:
    history.unread.append("Traceback (most recent call last):")
    assert rules(history) == {"broken"}


def test_an_agent_that_ends_by_itself_is_broken(history: History) -> None:
    history.deaths.append("it ended by itself with status 1")
    assert rules(history) == {"broken"}
