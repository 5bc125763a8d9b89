"""The cloud engine against the stand-in, over real HTTP."""

import asyncio
import base64
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.contract.errors import Code, JobError
from agent.contract.events import Usage
from agent.contract.jobs import Frame, Job, Message, Part, PicturePart, Sampling, TextPart
from agent.engines.base import Done, Event, Started, Text
from agent.standin import KEY, MODELS, Fault, Later, Plan, Refusal, StandIn, wire
from tests.cloud.asking import WORDS, job
from tests.cloud.conftest import Box, connected
from tests.cloud.serving import serving
from tests.waiting import eventually


def seeing(**fields: Any) -> Job:
    photo = (Path(__file__).parents[1] / "pictures" / "coffee.jpg").read_bytes()
    parts: list[Part] = [TextPart(type="text", text="What is it?"), PicturePart(type="picture", index=0)]
    return Job(client="dev7", id="j1", messages=(Message(role="user", content=parts),), pictures=(photo,), **fields)


async def test_an_answer_is_streamed(box: Box) -> None:
    events = await box.run(job())
    assert events[0] == Started(0)
    assert events[1:-1] == [
        Text(word, number) for number, word in enumerate(["cloud0", " cloud1", " cloud2", " cloud3", " cloud4"], 1)
    ]
    done = events[-1]
    assert isinstance(done, Done)
    assert (done.finish_reason, done.usage) == ("length", Usage(3, 5))


async def test_what_it_cost_is_the_time_to_the_first_token_and_after_it() -> None:
    async with serving(StandIn(first_token_s=0.2, tokens_per_s=50)) as url, connected(url) as box:
        _, done = await box.answer(job())
    assert done.cost is not None
    assert 0.2 <= done.cost.prefill_s < done.cost.prefill_s + 0.06 <= done.cost.prefill_s + done.cost.decode_s


async def test_a_job_is_sent_with_what_it_asks_for(box: Box, standin: StandIn) -> None:
    await box.answer(job(sampling=Sampling(max_tokens=3, temperature=0.5, stop=("x",))))
    (seen,) = standin.chats
    assert seen.body == {
        "model": MODELS[0],
        "messages": [{"role": "user", "content": "one two three"}],
        "max_tokens": 3,
        "temperature": 0.5,
        "stop": ["x"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_picture_goes_small_and_before_the_text(base_url: str, standin: StandIn) -> None:
    async with connected(base_url, frames_to_cloud="allowed") as box:
        await box.answer(seeing(camera="porch", frame=Frame()))
    (seen,) = standin.chats
    assert seen.body["model"] == MODELS[1]
    picture, text = seen.body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    url = picture["image_url"]["url"]
    assert len(url) < 180_000
    assert base64.b64decode(url.removeprefix("data:image/jpeg;base64,")).startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("plan", [Fault.EMPTY_CHOICES, Fault.DRIP])
async def test_an_odd_stream_is_an_answer(box: Box, standin: StandIn, plan: Plan) -> None:
    standin.plan.append(plan)
    assert (await box.answer(job()))[0] == WORDS


# Usage.


async def test_a_model_that_does_not_count_is_asked_without_and_remembered(box: Box, standin: StandIn) -> None:
    standin.always = Fault.USAGE_REFUSED
    assert [(await box.answer(job(name)))[0] for name in "ab"] == [WORDS, WORDS]
    assert ["stream_options" in seen.body for seen in standin.chats] == [True, False, False]


async def test_where_nobody_counts_the_budget_is_charged_an_estimate(box: Box, standin: StandIn) -> None:
    standin.always = Fault.USAGE_REFUSED
    _, done = await box.answer(job())
    assert (done.usage, box.ledger.charged) == (Usage(0, 5), [Usage(box.ledger.prompt, 5)])


async def test_of_two_jobs_that_find_out_at_once_both_are_answered(box: Box, standin: StandIn) -> None:
    standin.always = Fault.USAGE_REFUSED
    passing, box.ledger.open = box.ledger.open, asyncio.Event()
    held_up = box.ledger.open
    second = asyncio.create_task(box.answer(job("b")))
    await eventually(lambda: box.ledger.left != [])
    box.ledger.open = passing
    await box.answer(job("a"))
    held_up.set()
    assert (await second)[0] == WORDS


async def test_a_refusal_that_quotes_the_request_does_not_end_the_counting(box: Box, standin: StandIn) -> None:
    standin.plan.extend([Refusal(400, b"no: {'stream_options': 1}")] * 2)
    _, error = await box.failure(job())
    assert (error.word, len(standin.chats)) == ("rejected", 2)
    await box.answer(job())
    assert "stream_options" in standin.chats[2].body


async def test_a_request_that_is_sent_without_asks_the_budget_again(box: Box, standin: StandIn) -> None:
    standin.plan.append(Fault.USAGE_REFUSED)
    running = asyncio.create_task(box.failure(job()))
    await standin.chat()
    box.ledger.refuses = JobError(Code.CLOUD_UNAVAILABLE, "spent", reason="budget")
    _, error = await running
    assert (error.word, len(standin.chats)) == ("budget", 1)


async def test_a_probe_may_be_sent_without(base_url: str, standin: StandIn) -> None:
    ahead_s = 0.0
    async with connected(base_url, clock=lambda: time.monotonic() + ahead_s) as box:
        standin.plan.extend([Fault.END_OF_LIFE, Fault.USAGE_REFUSED])
        await box.failure(job())
        ahead_s = 3601.0
        assert (await box.answer(job()))[0] == WORDS


async def test_what_the_endpoint_refuses_costs_no_tokens(box: Box, standin: StandIn) -> None:
    standin.plan.append(Fault.UNPROCESSABLE)
    await box.failure(job())
    assert box.ledger.charged == [Usage()]


async def test_what_never_left_costs_no_tokens(box: Box) -> None:
    box.engine._endpoint = replace(box.engine._endpoint, chat="http://127.0.0.1:1/v1/chat/completions")
    assert box.engine._exchange is not None
    box.engine._exchange._endpoint = box.engine._endpoint
    await box.failure(job())
    assert (box.ledger.left, {*box.ledger.charged}) == ([], {Usage()})


@pytest.mark.parametrize("plan", [Fault.STALLED_FIRST, Later(polls=1000)])
async def test_what_is_let_go_before_a_word_of_it_came_costs_its_prompt(box: Box, standin: StandIn, plan: Plan) -> None:
    standin.plan.append(plan)
    running = asyncio.create_task(box.run(job()))
    await standin.chat()
    running.cancel()
    await asyncio.wait([running])
    assert box.ledger.charged == [Usage(box.ledger.prompt, 0)]


async def test_an_answer_that_broke_off_is_charged(box: Box, standin: StandIn) -> None:
    standin.plan.append(Fault.TRUNCATED_AMID)
    await box.failure(job())
    assert [usage.completion_tokens for usage in box.ledger.charged] == [3]


# Its time.


@pytest.mark.parametrize("plan", [Fault.STALLED_BEFORE_HEAD, Fault.STALLED_FIRST, Fault.STALLED_AMID])
async def test_a_job_without_a_deadline_has_its_end(
    box: Box, standin: StandIn, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.engines.cloud.under_way._PATIENCE_S", 0.2)
    standin.plan.append(plan)
    async with asyncio.timeout(5.0):
        _, error = await box.failure(job())
    assert error.word == "timeout"


@pytest.mark.parametrize(
    ("silent_s", "message", "counts"),
    [(5, "canceled", 0), (11, "canceled", 1), (0.5, "deadline", 0), (5, "deadline", 1)],
)
async def test_who_is_let_go_shows_a_silent_endpoint_a_client_that_changed_its_mind_only_after_long(
    base_url: str, standin: StandIn, silent_s: float, message: str, counts: int
) -> None:
    ahead_s = 0.0
    async with connected(base_url, clock=lambda: time.monotonic() + ahead_s) as box:
        standin.plan.append(Fault.STALLED_BEFORE_HEAD)
        running = asyncio.create_task(box.run(job()))
        await standin.chat()
        ahead_s = silent_s
        running.cancel(message)
        await asyncio.wait([running])
        assert f"<provider closed, {counts} of {counts} failed>" in repr(box.engine)


async def test_an_endpoint_that_puts_off_is_not_silent(base_url: str, standin: StandIn) -> None:
    ahead_s = 0.0
    async with connected(base_url, clock=lambda: time.monotonic() + ahead_s) as box:
        standin.plan.append(Later(polls=1000))
        running = asyncio.create_task(box.run(job()))
        await standin.chat()
        ahead_s = 11
        polled = len(standin.requests)
        await eventually(lambda: len(standin.requests) >= polled + 2)
        await let_go(running)
        assert "<provider closed, 0 of 0 failed>" in repr(box.engine)


async def let_go(running: asyncio.Task[list[Event]]) -> None:
    running.cancel()
    await asyncio.wait([running])


# What was put off.


@pytest.mark.parametrize("plan", [Fault.LATER, Fault.LATER_WHOLE, Later(polls=3)])
async def test_what_was_put_off_is_fetched(box: Box, standin: StandIn, plan: Plan) -> None:
    standin.plan.append(plan)
    words, done = await box.answer(job())
    assert (words, done.usage, len(box.ledger.left)) == (WORDS, Usage(3, 5), 1)


async def test_what_is_put_off_beyond_its_time_is_given_up(box: Box, standin: StandIn) -> None:
    standin.plan.append(Later(polls=1000))
    _, error = await box.failure(job(deadline_s=0.4))
    assert error.word == "timeout"


@pytest.mark.parametrize(("deadline_s", "header"), [(7.0, "7"), (0.5, "1"), (None, "50"), (900.0, "50")])
async def test_the_gateway_holds_a_request_as_long_as_it_is_of_use(
    box: Box, standin: StandIn, deadline_s: float | None, header: str
) -> None:
    await box.answer(job(deadline_s=deadline_s))
    assert standin.chats[0].headers["nvcf-poll-seconds"] == header


@pytest.mark.parametrize("preset", ["github", "llamacpp"])
async def test_nobody_else_is_told_of_nvidias_gateway(base_url: str, standin: StandIn, preset: str) -> None:
    async with connected(base_url, preset=preset) as box:
        await box.answer(job())
    assert "nvcf-poll-seconds" not in standin.chats[0].headers


# What is refused without asking anybody.


@pytest.mark.parametrize(
    ("settings", "asked", "code", "word"),
    [
        ({}, job(private=True), Code.PRIVACY, "privacy"),
        ({}, seeing(), Code.PRIVACY, "privacy"),
        ({"text_model": None}, job(), Code.CLOUD_UNAVAILABLE, "no_model"),
        ({"vision_model": None, "frames_to_cloud": "allowed"}, seeing(), Code.CLOUD_UNAVAILABLE, "no_model"),
        ({"frames_to_cloud": "allowed"}, seeing(model=MODELS[0]), Code.CLOUD_UNAVAILABLE, "no_model"),
        ({}, job(model="smollm2-135m"), Code.CLOUD_UNAVAILABLE, "no_model"),
        ({}, job(sampling=Sampling(top_k=1)), Code.UNSUPPORTED, "rejected"),
        ({"preset": "github", "key": None}, job(), Code.CLOUD_UNAVAILABLE, "key"),
    ],
)
async def test_a_refusal_asks_nobody(
    base_url: str, standin: StandIn, settings: dict[str, Any], asked: Job, code: Code, word: str
) -> None:
    async with connected(base_url, **settings) as box:
        events, error = await box.failure(asked)
        assert (error.code, error.word, events, standin.chats) == (code, word, [], [])
        assert str(box.engine.refusal(asked)) == str(error)


async def test_a_camera_that_was_made_private_since_keeps_its_jobs(base_url: str, standin: StandIn) -> None:
    kept: set[str] = set()
    async with connected(base_url, keeps=lambda asked: asked.id in kept) as box:
        await box.answer(job())
        kept.add("j1")
        _, error = await box.failure(job())
        assert (error.code, len(standin.chats)) == (Code.PRIVACY, 1)


async def test_a_spent_budget_is_a_refusal(box: Box, standin: StandIn) -> None:
    box.ledger.refuses = JobError(Code.CLOUD_UNAVAILABLE, "spent", reason="budget")
    _, error = await box.failure(job())
    assert (error.word, standin.chats) == ("budget", [])


async def test_privacy_comes_before_everything_else(base_url: str) -> None:
    async with connected(base_url, preset="github", key=None, text_model=None) as box:
        refused = box.engine.refusal(job(private=True))
        assert refused is not None
        assert refused.code == Code.PRIVACY


async def test_a_full_minute_holds_the_next_request_up(base_url: str, standin: StandIn) -> None:
    async with connected(base_url, requests_per_minute=1) as box:
        assert box.engine.delay_s(0) == 0.0
        await box.answer(job())
        assert box.engine.delay_s(0) == pytest.approx(61, abs=2)
        _, error = await box.failure(job(deadline_s=5))
        assert (error.word, len(standin.chats)) == ("rate_limit", 1)
        assert box.engine.refusal(job()) is None  # it has no deadline, and can wait


async def test_who_waits_for_the_next_minute_is_looked_at_again_then(base_url: str, standin: StandIn) -> None:
    ahead_s = 0.0
    async with connected(base_url, requests_per_minute=1, clock=lambda: time.monotonic() + ahead_s) as box:
        await box.answer(job())
        ahead_s = 60.7
        await box.answer(job())
        assert 0.0 < standin.chats[1].at - standin.chats[0].at < 2.0
        ahead_s += 60.7
        waiting = asyncio.create_task(box.failure(job()))
        await eventually(box.engine._gate._turn.locked)
        box.ledger.refuses = JobError(Code.CLOUD_UNAVAILABLE, "spent", reason="budget")
        _, error = await waiting
        assert (error.word, len(standin.chats)) == ("budget", 2)


# Readiness.


async def test_a_server_of_ones_own_is_asked_until_it_is_ready_and_then_left_in_peace(
    base_url: str, standin: StandIn
) -> None:
    standin.ready = False
    async with connected(base_url, wait=False) as box:
        health = await box.engine.changed()
        assert (health.state, health.detail) == ("loading", "the cloud endpoint is not ready (503): try again later")
        refused = box.engine.refusal(job())
        assert refused is not None
        assert refused.word == "not_ready"
        standin.ready = True
        assert (await box.engine.changed()).state == "ready"
        asked = len(standin.requests)
        for number in range(3):
            await box.answer(job(str(number)))
        assert len(standin.requests) == asked + 3


async def test_a_server_that_fails_is_asked_whether_it_is_still_ready(box: Box, standin: StandIn) -> None:
    standin.plan.extend([Fault.BROKEN] * 2)
    standin.ready = False
    changed = asyncio.create_task(box.engine.changed())
    await box.failure(job())
    assert (await changed).state == "loading"
    standin.ready = True
    assert (await box.engine.changed()).state == "ready"


async def test_a_hosted_endpoint_has_nothing_to_ask(base_url: str, standin: StandIn) -> None:
    async with connected(base_url, preset="azure"):
        assert standin.requests == []


async def test_it_is_not_ready_when_nobody_serves_it_any_more(base_url: str) -> None:
    async with connected(base_url) as box:
        pass
    assert (box.engine.health.state, box.engine.health.detail) == ("loading", "the engine was stopped")


# Presets, over HTTP.


@pytest.mark.parametrize(
    ("preset", "path", "header"),
    [
        ("nim", "/v1/chat/completions", ("authorization", f"Bearer {KEY}")),
        ("github", "/inference/chat/completions", ("authorization", f"Bearer {KEY}")),
        ("azure", "/openai/v1/chat/completions", ("api-key", KEY)),
        ("azure", "/models/chat/completions?api-version=2024-05-01-preview", ("api-key", KEY)),
        ("ollama", "/v1/chat/completions", ("authorization", f"Bearer {KEY}")),
        ("llamacpp", "/v1/chat/completions", ("authorization", f"Bearer {KEY}")),
    ],
)
async def test_each_preset_is_asked_at_its_path_with_its_key(preset: str, path: str, header: tuple[str, str]) -> None:
    where, _, query = path.partition("?")
    standin = _WithVersion(first_token_s=0.01, tokens_per_s=1000)
    async with serving(standin) as base_url:
        url = base_url.removesuffix("/v1") + where.removesuffix("/chat/completions") + (query and f"?{query}")
        async with connected(url, preset=preset) as box:
            assert (await box.answer(job()))[0] == WORDS
    (seen,) = standin.chats
    assert (seen.path, standin.query, seen.headers.get(header[0])) == (where, query, header[1])


class _WithVersion(StandIn):
    """Says its version, which is all that Ollama has for health; and remembers the query that was last."""

    query = ""

    async def __call__(self, scope: wire.Message, receive: wire.Receive, send: wire.Send) -> None:
        self.query = scope["query_string"].decode()
        path = "/health" if scope["path"] == "/api/version" else scope["path"]
        await super().__call__({**scope, "path": path}, receive, send)


async def test_the_engine_shows_its_state_and_no_key(box: Box) -> None:
    await box.answer(job())
    assert repr(box.engine).startswith("<CloudEngine nim <Readiness ready> <Gate <Breaker ")
    assert KEY not in repr(box.engine)
