"""What the engine makes of each fault: what the client reads, whether it is tried again, and the breaker's story."""

import asyncio
import time

import pytest
import structlog

from agent.contract.errors import Code
from agent.engines.base import Done, Started, Text
from agent.standin import MODELS, Fault, Plan, Refusal, StandIn, Stream
from tests.cloud.asking import WORDS, job
from tests.cloud.conftest import Box, connected


@pytest.mark.parametrize(
    ("plan", "code", "word", "requests"),
    [
        (Fault.DEGRADED, Code.CLOUD_UNAVAILABLE, "not_ready", 2),
        (Fault.IMAGE_FORMAT, Code.CLOUD_REJECTED, "rejected", 1),
        (Fault.BAD_KEY, Code.CLOUD_UNAVAILABLE, "key", 1),
        (Fault.NO_CREDITS, Code.CLOUD_UNAVAILABLE, "credits", 1),
        (Fault.FORBIDDEN, Code.CLOUD_UNAVAILABLE, "key", 1),
        (Fault.NO_MODEL, Code.CLOUD_UNAVAILABLE, "model", 1),
        (Fault.END_OF_LIFE, Code.CLOUD_UNAVAILABLE, "model", 1),
        (Fault.TOO_LARGE, Code.CLOUD_REJECTED, "rejected", 1),
        (Fault.UNPROCESSABLE, Code.CLOUD_REJECTED, "rejected", 1),
        (Fault.RATE_LIMITED, Code.CLOUD_UNAVAILABLE, "rate_limit", 1),
        (Refusal(429, retry_after_s=7), Code.CLOUD_UNAVAILABLE, "rate_limit", 1),
        (Fault.BROKEN, Code.CLOUD_UNAVAILABLE, "not_ready", 2),
        (Fault.HTML_PAGE, Code.CLOUD_UNAVAILABLE, "not_ready", 2),
        (Fault.UNAVAILABLE, Code.CLOUD_UNAVAILABLE, "not_ready", 1),
        (Fault.EXHAUSTED, Code.CLOUD_UNAVAILABLE, "not_ready", 2),
        (Fault.TIMED_OUT, Code.CLOUD_UNAVAILABLE, "timeout", 2),
        (Fault.REDIRECT, Code.CLOUD_UNAVAILABLE, "network", 1),
        (Fault.PORTAL, Code.CLOUD_UNAVAILABLE, "network", 1),
        (Fault.LATER_FAILED, Code.CLOUD_UNAVAILABLE, "not_ready", 2),
        (Fault.LATER_LOST, Code.CLOUD_UNAVAILABLE, "truncated", 2),
        (Fault.ERROR_FIRST, Code.CLOUD_UNAVAILABLE, "not_ready", 2),
        (Fault.TRUNCATED_FIRST, Code.CLOUD_UNAVAILABLE, "truncated", 2),
        (Fault.CUT_BEFORE_HEAD, Code.CLOUD_UNAVAILABLE, "network", 2),
        (Fault.CUT_FIRST, Code.CLOUD_UNAVAILABLE, "truncated", 2),
        (Fault.MALFORMED_FIRST, Code.CLOUD_UNAVAILABLE, "truncated", 2),
    ],
)
async def test_a_fault_is_what_the_client_reads(
    box: Box, standin: StandIn, plan: Plan, code: Code, word: str, requests: int
) -> None:
    standin.always = plan
    _, error = await box.failure(job())
    assert (error.code, error.word, len(standin.chats)) == (code, word, requests)


_PASSING = [
    Fault.DEGRADED,
    Fault.BROKEN,
    Fault.BAD_GATEWAY,
    Refusal(503),
    Fault.EXHAUSTED,
    Fault.TIMED_OUT,
    Fault.LATER_FAILED,
    Fault.LATER_LOST,
    Fault.ERROR_FIRST,
    Fault.TRUNCATED_FIRST,
    Fault.CUT_BEFORE_HEAD,
    Fault.CUT_FIRST,
    Fault.MALFORMED_FIRST,
]


@pytest.mark.parametrize("plan", _PASSING)
async def test_what_fails_before_its_first_word_is_tried_again(box: Box, standin: StandIn, plan: Plan) -> None:
    standin.plan.append(plan)
    events = await box.run(job())
    assert [type(event) for event in events] == [Started, *[Text] * 5, Done]
    assert len(box.ledger.left) == 2


@pytest.mark.parametrize("plan", [Fault.RATE_LIMITED_FOR, Fault.RATE_LIMITED_UNTIL])
async def test_it_is_tried_again_when_the_endpoint_says(box: Box, standin: StandIn, plan: Plan) -> None:
    standin.plan.append(plan)
    await box.answer(job())
    first, second = standin.chats
    assert first.ended_at is not None
    assert 0.0 < second.at - first.ended_at < 3.0


@pytest.mark.parametrize("plan", [Fault.ERROR_AMID, Fault.TRUNCATED_AMID, Fault.CUT_AMID, Fault.MALFORMED_AMID])
async def test_what_fails_after_its_first_word_is_over(box: Box, standin: StandIn, plan: Plan) -> None:
    standin.plan.append(plan)
    events, error = await box.failure(job())
    assert [event.text for event in events if isinstance(event, Text)] == ["cloud0", " cloud1", " cloud2"]
    assert error.code == Code.CLOUD_UNAVAILABLE
    assert len(standin.chats) == 1


async def test_a_wait_beyond_the_deadline_is_not_waited_for(box: Box, standin: StandIn) -> None:
    standin.plan.append(Refusal(429, retry_after_s=3))
    async with asyncio.timeout(1.0):
        _, error = await box.failure(job(deadline_s=2.0))
    assert (error.word, error.retry_after_s) == ("rate_limit", 3.0)


async def test_a_silence_that_outlasts_a_job_counts_as_a_timeout(box: Box, standin: StandIn) -> None:
    standin.always = Fault.STALLED_FIRST
    for name in "ab":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await box.run(job(name, deadline_s=0.11))
    _, error = await box.failure(job("c"))
    assert (error.word, len(standin.chats)) == ("breaker", 2)


async def test_a_silence_counts_whenever_the_job_is_given_up_but_by_its_client(box: Box, standin: StandIn) -> None:
    standin.plan.extend([Fault.STALLED_FIRST] * 4)
    for number, message in enumerate(["canceled", "canceled", "cloud_unavailable", "cloud_unavailable"]):
        running = asyncio.create_task(box.run(job(str(number), deadline_s=0.4)))
        await standin.chat(number + 1)
        await asyncio.sleep(0.21)  # half of its time
        running.cancel(message)
        await asyncio.wait([running])
    _, error = await box.failure(job("c"))
    assert (error.word, len(standin.chats)) == ("breaker", 4)


async def test_a_job_let_go_early_counts_as_nothing(box: Box, standin: StandIn) -> None:
    standin.plan.extend([Fault.STALLED_FIRST] * 3)
    for number in range(3):
        running = asyncio.create_task(box.run(job(str(number))))
        await standin.chat(number + 1)
        running.cancel()
        await asyncio.wait([running])
    assert (await box.answer(job()))[0] == WORDS


# The breaker and its story.


async def test_the_log_tells_the_breakers_story(box: Box, standin: StandIn) -> None:
    standin.always = Fault.BROKEN
    with structlog.testing.capture_logs() as logs:
        await box.failure(job())
        await box.failure(job())
    story = [entry for entry in logs if entry["event"].startswith("cloud.")]
    failure = {
        "client": "dev7",
        "id": "j1",
        "model": MODELS[0],
        "scope": "provider",
        "word": "not_ready",
        "status": 500,
        "log_level": "warning",
        "event": "cloud.attempt_failed",
    }
    assert [{**entry, "detail": None, "for_s": None} for entry in story] == [
        {**failure, "retry_s": 0.0, "detail": None, "for_s": None},
        {
            "event": "cloud.breaker_opened",
            "scope": "provider",
            "model": None,
            "word": "not_ready",
            "for_s": None,
            "detail": None,
            "log_level": "warning",
        },
        {**failure, "retry_s": None, "detail": None, "for_s": None},
    ]


async def test_what_is_shut_is_not_asked(box: Box, standin: StandIn) -> None:
    standin.plan.append(Fault.END_OF_LIFE)
    await box.failure(job())
    refused = box.engine.refusal(job())
    assert refused is not None
    assert (refused.word, len(standin.chats)) == ("breaker", 1)
    assert refused.retry_after_s == pytest.approx(3600, abs=5)


async def test_failures_that_are_few_among_answers_shut_nothing(box: Box, standin: StandIn) -> None:
    standin.plan.extend([None, None, None, Fault.BROKEN, Fault.BROKEN])
    for name in "abcd":
        await box.answer(job(name))
    assert len(standin.chats) == 6


async def test_after_its_time_one_job_probes_and_opens_it_for_all(base_url: str, standin: StandIn) -> None:
    ahead_s = 0.0
    async with connected(base_url, clock=lambda: time.monotonic() + ahead_s) as box:
        standin.plan.extend([Fault.END_OF_LIFE, Stream("drip")])
        await box.failure(job())
        ahead_s = 3601.0
        with structlog.testing.capture_logs() as logs:
            probe = asyncio.create_task(box.answer(job("probe")))
            await standin.chat(2)
            refused = box.engine.refusal(job())
            await probe
        assert refused is not None
        assert (refused.word, box.engine.refusal(job())) == ("breaker", None)
        assert [(entry["event"], entry["scope"]) for entry in logs] == [("cloud.breaker_closed", "model")]


async def test_one_model_that_is_gone_does_not_shut_the_other(box: Box, standin: StandIn) -> None:
    standin.plan.append(Fault.END_OF_LIFE)
    await box.failure(job())
    assert (await box.answer(job(model=MODELS[1])))[0] == WORDS
