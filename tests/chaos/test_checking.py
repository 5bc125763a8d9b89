"""Each rule of the checker, seen to fail on a history that was made up to break it."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from agent.contract.jobs import Key
from tests.chaos.checking import check
from tests.chaos.history import BY_AGENT, BY_BROKER, History, Lost, Outage
from tests.chaos.made_up import KEY, QUIET, final, logged, rules, saying, told, went_well


@pytest.fixture
def history() -> History:
    return went_well()


def test_a_job_that_went_well_breaks_no_rule(history: History) -> None:
    assert check(history) == []


def test_the_same_final_may_come_twice(history: History) -> None:
    history.sent.append(told("final", final(), at=30.0, connection=2))
    history.heard.append(told("final", final(), at=30.0, connection=0))
    assert check(history) == []


def test_a_final_that_its_client_never_heard_is_unanswered(history: History) -> None:
    history.heard.clear()
    assert rules(history) == {"unanswered"}


@pytest.mark.parametrize("by", BY_BROKER)
@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ((7.9,), {"unanswered"}),
        ((8.1,), set()),
        ((10.9,), set()),
        ((11.1,), {"unanswered"}),
        ((9.0, 5.0), {"unanswered"}),
    ],
)
def test_a_killed_broker_may_lose_what_it_took_on_just_before(
    history: History, by: str, when: tuple[float, ...], expected: set[str]
) -> None:
    history.outages = [Outage("kill", 10.0, 11.0)]
    history.repeated[KEY] = Lost(by, when)
    assert rules(history) == expected


def test_a_killed_broker_may_lose_what_it_read_when_it_was_stopped_no_longer(history: History) -> None:
    history.outages = [Outage("stop", 2.0, 9.0), Outage("kill", 10.0, 11.0)]
    history.repeated[KEY] = Lost(BY_BROKER[0], (3.0,))
    assert check(history) == []


def test_a_stopped_broker_loses_nothing(history: History) -> None:
    history.outages = [Outage("stop", 9.0, 11.0)]
    history.repeated[KEY] = Lost(BY_BROKER[0], (10.0,))
    assert rules(history) == {"unanswered"}


def test_a_final_under_an_id_that_nobody_used_is_stray(history: History) -> None:
    history.sent.append(replace(saying(history.sent[-1], state="REJECTED"), key=Key("five-a", "made-up")))
    assert rules(history) == {"stray"}


def test_what_the_agent_owed_is_unanswered_though_a_repeat_brought_it(history: History) -> None:
    history.repeated[KEY] = Lost(BY_AGENT)
    history.outages = [Outage("kill", 10.0, 11.0)]
    assert rules(history) == {"unanswered"}


@pytest.mark.parametrize(
    ("acknowledged", "taken", "expected"),
    [
        (False, False, Lost(BY_BROKER[0], (9.0,))),
        (True, True, Lost(BY_BROKER[1], (11.0,))),
        (True, False, Lost(BY_AGENT)),
    ],
)
def test_who_lost_what_is_told_by_the_acknowledgements(acknowledged: bool, taken: bool, expected: Lost) -> None:
    seen = History({KEY: [9.0]}, acknowledged={KEY} if acknowledged else set(), taken={KEY: [11.0]} if taken else {})
    assert seen.lost(KEY) == expected


@pytest.mark.parametrize("connection", [0, 2])
def test_two_finals_that_differ_anywhere_are_changed(history: History, connection: int) -> None:
    seen = history.sent if connection else history.heard
    seen.append(told("final", final() | {"timing": {"total_s": 1}}, connection=connection))
    assert rules(history) == {"changed"}


def test_finals_that_say_the_same_in_other_bytes_are_changed(history: History) -> None:
    history.heard[-1] = replace(history.heard[-1], payload=history.heard[-1].payload + b" ")
    assert rules(history) == {"changed"}


def test_a_final_that_is_not_the_one_in_the_spool_is_changed(history: History) -> None:
    history.stored[KEY, json.dumps(final() | {"timing": {}}).encode()] = 12.0
    assert rules(history) == {"changed"}


def test_a_start_after_a_final_that_was_never_told_of_is_run_again(history: History) -> None:
    history.stored[KEY, json.dumps(final(attempt=2)).encode()] = 9.0
    history.sent = [saying(each, attempt=2) for each in history.sent]
    history.heard = [saying(each, attempt=2) for each in history.heard]
    history.log = [logged("job.started", 8.0, attempt=1), logged("job.started", 10.0, attempt=2)]
    assert rules(history) == {"run again"}


def test_an_attempt_that_is_started_twice_is_run_again(history: History) -> None:
    history.log.insert(1, logged("job.started", 10.5, attempt=1))
    assert rules(history) == {"run again"}


@pytest.mark.parametrize(("spoke", "expected"), [(10.3, {"run again"}), (10.9, set())])
def test_only_a_number_that_was_not_on_disk_yet_may_be_given_again(
    history: History, spoke: float, expected: set[str]
) -> None:
    history.sent = [replace(saying(each, attempt=2), at=11.0) for each in history.sent]
    history.sent.insert(0, told("state", {"state": "restarted", "attempt": 2}, at=spoke))
    history.heard = [saying(each, attempt=2) for each in history.heard]
    history.log = [
        logged("job.started", 10.0, attempt=1),
        logged("job.requeued", 10.1, attempt=2),
        logged("job.started", 10.2, attempt=2),
        logged("job.started", 10.6, attempt=2),
    ]
    assert rules(history) == expected


def test_a_success_without_a_start_is_never_run(history: History) -> None:
    del history.log[0]
    assert rules(history) == {"never run"}


def test_what_did_not_succeed_need_not_have_run(history: History) -> None:
    history.log.clear()
    for seen in (history.sent, history.heard):
        seen[:] = [told("final", final("", seq=0, state="REJECTED"), connection=seen[-1].connection)]
    assert check(history) == []


def test_a_start_after_the_final_was_stored_is_run_again(history: History) -> None:
    history.log.append(logged("job.started", 10.5, attempt=1))
    assert rules(history) == {"run again"}


def test_a_start_after_the_final_was_published_is_run_again(history: History) -> None:
    history.log = [logged("job.started", 10.0, attempt=1), logged("job.started", 12.0, attempt=1)]
    assert rules(history) == {"run again"}


def test_a_final_of_an_attempt_before_the_last_is_run_again(history: History) -> None:
    history.log.insert(1, logged("job.started", 10.5, attempt=2))
    assert rules(history) == {"run again"}


@pytest.mark.parametrize(
    "change",
    [
        {"resident": 53_000_000},
        {"files": QUIET.files + Counter({"socket": 1})},
        {"threads": 6},
        {"pid": 2},
        {"workers": 1},
        {"workers": 3},
    ],
    ids=lambda change: str(next(iter(change))),
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


def test_a_worker_that_does_not_come_back_is_broken(history: History) -> None:
    history.missed.append("text worker: kill had nothing to hit for 120 s")
    assert rules(history) == {"broken"}


def test_an_agent_that_ends_by_itself_is_broken(history: History) -> None:
    history.deaths.append("it ended by itself with status 1")
    assert rules(history) == {"broken"}
