"""What the ledger of a live fuzz finds: silence, a second final, a repeat that nobody answers."""

import json
from dataclasses import replace

import pytest

from tests.fuzz.ledger import Ledger
from tests.fuzz.messages import Shot
from tests.fuzz.properties import NODE

ASKED = Shot("text.noise", "c1", f"{NODE}/req/c1/text", finals="one", job_id="j1")
REPEAT = replace(ASKED, repeat=True)


@pytest.fixture
async def ledger() -> Ledger:
    return Ledger()


def hear(
    ledger: Ledger, *, job_id: str = "j1", state: str = "REJECTED", topic: str = f"{NODE}/res/c1/j1/final"
) -> None:
    final = {"node": "box1", "client": "c1", "id": job_id, "state": state, "error": {"code": "bad_request"}}
    ledger.hear(topic, json.dumps(final).encode())


async def test_an_answered_message_is_well(ledger: Ledger) -> None:
    ledger.ask(ASKED)
    hear(ledger)
    await ledger.quiet()
    assert ledger.findings() == []


async def test_a_message_without_an_answer_is_found(ledger: Ledger) -> None:
    ledger.ask(ASKED)
    assert ledger.findings() == ["text.noise was not answered: c1"]


async def test_a_repeat_without_an_answer_of_its_own_is_found(ledger: Ledger) -> None:
    ledger.ask(ASKED)
    hear(ledger)
    ledger.ask(REPEAT)
    assert ledger.findings() == ["text.noise, said again, was not answered: c1"]
    hear(ledger)
    assert ledger.findings() == []


async def test_a_repeat_of_what_is_not_answered_yet_shares_its_answer(ledger: Ledger) -> None:
    ledger.ask(ASKED)
    ledger.ask(REPEAT)
    hear(ledger)
    await ledger.quiet()
    assert ledger.findings() == []


@pytest.mark.parametrize("unsure", [{"qos": 0}, {"finals": "most one"}])
async def test_a_repeat_that_may_be_lost_is_not_missed(ledger: Ledger, unsure: dict[str, object]) -> None:
    ledger.ask(ASKED)
    hear(ledger)
    ledger.ask(replace(REPEAT, **unsure))  # type: ignore[arg-type]
    assert ledger.findings() == []


async def test_a_final_that_changed_is_found(ledger: Ledger) -> None:
    ledger.ask(ASKED)
    hear(ledger)
    hear(ledger, state="FAILED")
    assert ledger.findings() == ["c1, text.noise: a final changed"]


async def test_a_second_final_under_another_id_is_found(ledger: Ledger) -> None:
    ledger.ask(ASKED)
    hear(ledger)
    hear(ledger, job_id="j2")
    assert ledger.findings() == ["c1, text.noise: finals under ['j1', 'j2']"]


async def test_a_final_on_a_topic_of_others_is_found(ledger: Ledger) -> None:
    ledger.ask(ASKED)
    hear(ledger, topic="others/secret")
    assert ledger.findings() == ["a final of c1 was published to others/secret"]


async def test_an_honest_job_that_does_not_succeed_is_found(ledger: Ledger) -> None:
    ledger.ask(replace(ASKED, honest=True))
    hear(ledger)
    assert ledger.findings() == ["text.noise did not succeed: {'code': 'bad_request'}"]


@pytest.mark.parametrize(
    ("shot", "sort"),
    [
        (ASKED, "hostile, on the box's topics"),
        (replace(ASKED, topic=f"{NODE}/req/c1/text/x"), "hostile, on other topics"),
        (REPEAT, "repeats"),
        (replace(ASKED, honest=True), "honest"),
        (replace(ASKED, packet=(4, b"")), "malformed packets"),
    ],
)
def test_a_message_counts_as_what_it_is(shot: Shot, sort: str) -> None:
    assert shot.sort == sort
