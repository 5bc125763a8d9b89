"""Each rule of the judge, seen to fail on a run that was made up to break it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from agent.contract.jobs import Key
from agent.standin import Fault
from tests.chaos.history import Told
from tests.flapping.history import Ask, Down, History, Received
from tests.flapping.judging import check
from tests.flapping.table import ends, table

_HERE = Key("north", "job00001-0000aaaa")
_THERE = Key("north", "job00002-0000bbbb")
_TEXTS = {_HERE: "Cows are kind.", _THERE: "cloud0 cloud1 cloud2"}


def final(key: Key, where: Literal["local", "cloud", "none"], **changes: Any) -> dict[str, Any]:
    reason = "required" if where == "local" else "preferred"
    placement = {"where": where, "reason": reason, "egress": where == "cloud"}
    common = {"state": "SUCCEEDED", "text": _TEXTS[key], "attempt": 1, "seq": 2, "error": None, "placement": placement}
    return {**common, **changes}


def told(key: Key, kind: Literal["state", "chunk", "final"], body: dict[str, Any], at: float = 12.0) -> Told:
    return Told(key, kind, json.dumps(body).encode(), at)


def chunk(key: Key, seq: int, text: str, attempt: int = 1) -> Told:
    return told(key, "chunk", {"attempt": attempt, "seq": seq, "text": text}, 11.0)


def logged(event: str, at: float, **fields: Any) -> dict[str, Any]:
    return {"event": event, "timestamp": datetime.fromtimestamp(at, UTC).isoformat(), **fields}


def opened(at: float, scope: str = "provider", for_s: float = 10.0) -> dict[str, Any]:
    return logged("cloud.breaker_opened", at, scope=scope, word="truncated", for_s=for_s)


def closed(at: float, scope: str = "provider") -> dict[str, Any]:
    return logged("cloud.breaker_closed", at, scope=scope, word="truncated", for_s=10.0)


def received(plan: Fault | None, at: float, key: Key = _THERE, **changes: Any) -> Received:
    return replace(Received(f"… {key.id} …".encode(), plan, at, at + 0.2), **changes)


def say(history: History, key: Key, at: float = 12.0, **changes: Any) -> None:
    """Change what a job's final says."""
    (number,) = [n for n, each in enumerate(history.heard) if each.key == key and each.kind == "final"]
    history.heard[number] = told(key, "final", {**history.heard[number].body, **changes}, at)


def rules(history: History) -> set[str]:
    return {violation.rule for violation in check(history)}


@pytest.fixture
def history() -> History:
    """One job that stayed, one that was answered in the cloud."""
    asks = {
        _HERE: Ask(_HERE, {"placement": "local_only", "max_tokens": 9, "deadline_s": 3.0}, "warm", 10.0),
        _THERE: Ask(_THERE, {"placement": "cloud_only", "max_tokens": 3, "deadline_s": 3.0}, "warm", 10.0),
    }
    heard = [
        *(chunk(_HERE, 0, "Cows are"), chunk(_HERE, 1, " kind."), told(_HERE, "final", final(_HERE, "local"))),
        *(chunk(_THERE, 0, "cloud0 cloud1"), chunk(_THERE, 1, " cloud2")),
        told(_THERE, "final", final(_THERE, "cloud")),
    ]
    return History(asks, heard, [received(None, 10.5)])


def test_a_run_that_went_well_breaks_no_rule(history: History) -> None:
    assert check(history) == []


def test_a_job_without_a_final_is_lost(history: History) -> None:
    history.heard = [each for each in history.heard if each.key != _HERE]
    assert rules(history) == {"lost"}


def test_a_final_that_nobody_asked_for_is_another_jobs(history: History) -> None:
    history.heard.append(told(Key("north", "other"), "final", final(_HERE, "local")))
    assert rules(history) == {"lost"}


def test_a_final_may_come_twice_and_not_change(history: History) -> None:
    history.heard.append(history.heard[2])
    assert check(history) == []
    history.heard.append(told(_HERE, "final", final(_HERE, "local", seq=3)))
    assert rules(history) == {"lost"}


def test_words_of_two_models_in_one_attempt_are_spliced(history: History) -> None:
    history.heard.insert(0, chunk(_THERE, 0, "cloud0", attempt=2))
    assert check(history) == []
    history.heard.insert(1, chunk(_THERE, 1, " and cows", attempt=2))
    assert rules(history) == {"spliced"}


def test_words_of_two_models_in_a_final_are_spliced(history: History) -> None:
    say(history, _THERE, text="cloud0 cloud1 cloud2 and")
    assert "spliced" in rules(history)


@pytest.mark.parametrize("text", ["cloud0 cloud1 cloud0", "cloud0 cloud2 cloud3"])
def test_words_of_two_answers_of_the_cloud_are_spliced(history: History, text: str) -> None:
    history.heard = [each for each in history.heard if each.kind == "final"]
    say(history, _THERE, text=text)
    assert rules(history) == {"spliced"}


def test_a_final_that_is_not_what_was_streamed_is_spliced(history: History) -> None:
    say(history, _HERE, text="Cows are good.")
    assert rules(history) == {"spliced"}


def test_a_chunk_that_was_lost_on_the_way_is_no_splice(history: History) -> None:
    del history.heard[1]
    assert check(history) == []


def test_two_texts_for_one_chunk_are_spliced(history: History) -> None:
    history.heard.insert(1, chunk(_HERE, 0, "Hens are"))
    assert rules(history) == {"spliced"}


def test_an_answer_of_the_cloud_that_lacks_words_and_succeeded_is_cut_short(history: History) -> None:
    history.heard = [each for each in history.heard if each.kind == "final"]
    say(history, _THERE, text="cloud0 cloud1")
    assert rules(history) == {"cut short"}


def test_words_of_the_other_place_are_misplaced(history: History) -> None:
    say(history, _THERE, placement={"where": "local", "reason": "fallback", "egress": True})
    assert rules(history) == {"misplaced"}


def test_a_reason_that_nobody_knows_is_misplaced(history: History) -> None:
    say(history, _THERE, placement={"where": "cloud", "reason": "whim", "egress": True})
    assert rules(history) == {"misplaced"}


@pytest.mark.parametrize(
    ("state", "error", "at", "expected"),
    [
        ("SUCCEEDED", None, 13.25, set()),
        ("SUCCEEDED", None, 13.35, {"late"}),
        ("TIMED_OUT", {"code": "deadline"}, 13.35, set()),
        ("TIMED_OUT", {"code": "deadline"}, 15.1, {"late"}),
        ("FAILED", {"code": "cloud_unavailable"}, 13.35, {"late"}),
    ],
)
def test_what_is_late_says_why(
    history: History, state: str, error: dict[str, str] | None, at: float, expected: set[str]
) -> None:
    say(history, _THERE, at, state=state, error=error)
    assert rules(history) == expected


def test_a_box_that_was_down_is_late_without_its_fault(history: History) -> None:
    history.down = [Down(12.0, 14.0)]
    say(history, _THERE, 20.0)
    assert check(history) == []


def test_a_job_that_stays_and_was_seen_there_is_leaked(history: History) -> None:
    history.received.append(received(None, 10.6, _HERE))
    assert rules(history) == {"leaked", "egress"}


@pytest.mark.parametrize("key", [_HERE, _THERE])
def test_egress_is_true_when_the_job_was_seen_there_and_only_then(history: History, key: Key) -> None:
    where = "local" if key == _HERE else "cloud"
    say(history, key, placement={"where": where, "reason": "required", "egress": key == _HERE})
    assert rules(history) == {"egress"}


@pytest.mark.parametrize("code", ["internal", "bad_request"])
def test_a_defect_in_an_answer_is_broken(history: History, code: str) -> None:
    say(history, _THERE, state="FAILED", error={"code": code})
    assert rules(history) == {"broken"}


def test_a_defect_in_the_log_is_broken(history: History) -> None:
    history.log = [logged("job.broke", 11.0)]
    history.unread = ["Traceback"]
    assert [violation.rule for violation in check(history)] == ["broken", "broken"]


def test_a_circuit_opens_for_a_fault_and_closes_when_it_was_probed(history: History) -> None:
    history.received = [received(Fault.CUT_FIRST, 10.0), received(None, 25.0)]
    history.log = [opened(10.3), closed(25.3)]
    assert check(history) == []


@pytest.mark.parametrize(
    ("met", "expected"),
    [(Fault.DEGRADED, set()), (Fault.UNPROCESSABLE, set()), (Fault.CUT_AMID, {"story"})],
)
def test_a_circuit_is_closed_by_a_request_that_got_beyond_it(history: History, met: Fault, expected: set[str]) -> None:
    history.received = [received(Fault.CUT_FIRST, 10.0), received(met, 25.0)]
    history.log = [opened(10.3), closed(25.3)]
    assert rules(history) == expected


@pytest.mark.parametrize(
    "log",
    [
        pytest.param([opened(9.0)], id="opened for nothing"),
        pytest.param([opened(10.3, "key")], id="opened for another fault"),
        pytest.param([closed(10.3)], id="closed and was not open"),
        pytest.param([opened(10.3), opened(12.0)], id="opened and was open"),
        pytest.param([opened(10.3), closed(12.0)], id="closed before its time"),
        pytest.param([opened(10.3), closed(23.0)], id="closed and nothing was answered"),
    ],
)
def test_a_line_that_does_not_fit_is_untrue(history: History, log: list[dict[str, Any]]) -> None:
    history.received = [received(Fault.CUT_FIRST, 10.0), received(None, 25.0)]
    history.log = log
    assert "story" in rules(history)


def test_a_request_that_an_open_circuit_let_through_is_told(history: History) -> None:
    history.received = [received(Fault.CUT_FIRST, 10.0), received(Fault.CUT_FIRST, 15.0)]
    history.log = [opened(10.3)]
    assert rules(history) == {"story"}
    history.received[1] = replace(history.received[1], poll=True)
    assert check(history) == []


def test_a_fault_that_lasts_and_opens_nothing_is_told(history: History) -> None:
    history.received = [received(Fault.BAD_KEY, 10.0)]
    assert rules(history) == {"story"}
    history.log = [opened(10.3, "key")]
    assert check(history) == []


def test_faults_alone_that_open_nothing_are_told(history: History) -> None:
    history.received = [received(Fault.STALLED_FIRST, 10.0 + n) for n in range(3)]
    assert check(history) == []
    history.received.append(received(Fault.STALLED_FIRST, 14.0))
    assert rules(history) == {"story"}


def test_what_only_says_something_of_its_request_opens_nothing(history: History) -> None:
    history.received = [received(Fault.UNPROCESSABLE, 10.0 + n) for n in range(9)]
    assert check(history) == []


def test_another_life_begins_with_closed_circuits(history: History) -> None:
    history.received = [received(Fault.CUT_FIRST, 10.0), received(None, 15.0)]
    history.down = [Down(12.0, 14.0)]
    history.log = [opened(10.3)]
    assert check(history) == []


def test_the_table_has_a_row_for_each_part_of_the_run(history: History) -> None:
    rows = list(table(history))
    assert len(rows) == 3
    assert rows[2].startswith("| warm | 2 | 1 | 1 | 1 |")
    assert sorted(ends(history)) == [
        "SUCCEEDED, cloud (preferred), left the box 1",
        "SUCCEEDED, local (required)                1",
    ]
