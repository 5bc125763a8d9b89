"""The stand-in is like NIM where it says so: what tests of the cloud engine build on."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import islice
from random import Random
from typing import Any

import httpx
import pytest

from agent.standin import KEY, MODELS, Fault, Later, Refusal, StandIn, Stream, at_random
from tests.cloud.serving import serving

_ASK: dict[str, Any] = {
    "model": MODELS[0],
    "messages": [{"role": "user", "content": "one two three"}],
    "max_tokens": 5,
    "stream": True,
}
_WORDS = "cloud0 cloud1 cloud2 cloud3 cloud4"


@pytest.fixture
def standin() -> StandIn:
    return StandIn(first_token_s=0.01, tokens_per_s=1000)


@pytest.fixture
async def client(standin: StandIn) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(standin) as base_url,
        httpx.AsyncClient(base_url=base_url, headers={"Authorization": f"Bearer {KEY}"}, timeout=5) as connected,
    ):
        yield connected


async def ask(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    return await client.post("chat/completions", json={**_ASK, **changes})


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return what a stream of events says, but its end."""
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line.startswith("data: {")]


def words(answer: httpx.Response) -> str:
    return "".join(
        choice["delta"].get("content", "") for chunk in chunks(answer) for choice in chunk.get("choices", ())
    )


def content(picture: str) -> list[dict[str, Any]]:
    """Return a message's content with a picture of so much base64."""
    url = f"data:image/jpeg;base64,{picture}"
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]


async def test_a_stream_has_a_word_a_token_its_reason_and_its_end(client: httpx.AsyncClient) -> None:
    answer = await ask(client)
    assert words(answer) == _WORDS
    assert chunks(answer)[-1]["choices"][0]["finish_reason"] == "length"
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_stream_has_its_usage_only_where_it_was_asked_for(client: httpx.AsyncClient) -> None:
    without = await ask(client)
    asked = await ask(client, stream_options={"include_usage": True})
    assert not any("usage" in chunk for chunk in chunks(without))
    last = chunks(asked)[-1]
    assert (last["choices"], last["usage"]) == (
        [],
        {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
    )


async def test_a_whole_answer_has_the_same_words_and_its_usage(client: httpx.AsyncClient) -> None:
    answer = (await ask(client, stream=False)).json()
    assert answer["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": _WORDS},
        "finish_reason": "length",
    }
    assert answer["usage"]["completion_tokens"] == 5


async def test_words_come_when_they_are_due(client: httpx.AsyncClient) -> None:
    slow = StandIn(first_token_s=0.1, tokens_per_s=50)
    async with serving(slow) as base_url:
        await client.post(f"{base_url}/chat/completions", json=_ASK)
    (seen,) = slow.chats
    assert seen.first_token_at is not None
    assert seen.ended_at is not None
    assert seen.first_token_at - seen.at >= 0.1
    assert seen.ended_at - seen.at >= 0.1 + 4 / 50


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"model": "gpt-5"}, 404),
        ({"messages": []}, 422),
        ({"messages": [{"role": "tool", "content": "x"}]}, 422),
        ({"max_tokens": 0}, 422),
        ({"top_k": 5}, 422),
        ({"stream": False, "stream_options": {"include_usage": True}}, 422),
        ({"messages": [{"role": "user", "content": content("A" * 180_000)}]}, 400),
        ({"messages": [{"role": "user", "content": content("A" * 179_999)}]}, 200),
        ({"messages": [{"role": "user", "content": content("A")[::-1]}]}, 422),
        ({"messages": [{"role": "user", "content": 'What? <img src="data:image/png;base64,AA" />'}]}, 422),
        ({"messages": [{"role": "user", "content": '<img src="data:image/png;base64,AA" /> What?'}]}, 200),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}]}, 422),
    ],
)
async def test_what_nim_does_not_take_is_refused(
    client: httpx.AsyncClient, changes: dict[str, Any], status: int
) -> None:
    assert (await ask(client, **changes)).status_code == status


async def test_a_body_that_is_no_json_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("chat/completions", content=b"{")).status_code == 422


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {KEY}"}, 200),
        ({"Authorization": "", "api-key": KEY}, 200),
        ({"Authorization": "Bearer other"}, 401),
        ({"Authorization": ""}, 401),
    ],
)
async def test_a_request_needs_the_key(client: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    assert (await client.post("chat/completions", json=_ASK, headers=headers)).status_code == status


@pytest.mark.parametrize("fault", [each for each in Fault if isinstance(each.value, Refusal)])
async def test_a_refusal_is_answered_as_it_is(client: httpx.AsyncClient, standin: StandIn, fault: Fault) -> None:
    standin.plan.append(fault)
    answer = await ask(client, stream_options={"include_usage": True})
    assert (answer.status_code, answer.content) == (fault.value.status, fault.value.body)


async def test_usage_is_refused_to_whoever_asks_for_it(client: httpx.AsyncClient, standin: StandIn) -> None:
    standin.always = Fault.USAGE_REFUSED
    assert (await ask(client, stream_options={"include_usage": True})).status_code == 400
    assert (await ask(client)).status_code == 200


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Fault.RATE_LIMITED, None),
        (Fault.RATE_LIMITED_FOR, "1"),
        (Refusal(429, retry_after_s=0.25), "0.25"),
        (Fault.UNAVAILABLE, "10800"),
    ],
)
async def test_retry_after_is_in_seconds(
    client: httpx.AsyncClient, standin: StandIn, refusal: Fault | Refusal, said: str | None
) -> None:
    standin.plan.append(refusal)
    assert (await ask(client)).headers.get("retry-after") == said


async def test_retry_after_may_be_a_date(client: httpx.AsyncClient, standin: StandIn) -> None:
    standin.plan.append(Fault.RATE_LIMITED_UNTIL)
    assert (await ask(client)).headers["retry-after"].endswith(" GMT")


@pytest.mark.parametrize(
    ("stream", "said", "done"),
    [
        (Stream("error", 2), "cloud0 cloud1", True),
        (Stream("truncated", 2), "cloud0 cloud1", False),
        (Stream("truncated", 0), "", False),
        (Stream("malformed", 2), "cloud0 cloud1 cloud3 cloud4", True),
        (Stream("empty"), _WORDS, True),
        (Stream("drip"), _WORDS, True),
    ],
)
async def test_a_stream_goes_wrong_where_it_is_told(
    client: httpx.AsyncClient, standin: StandIn, stream: Stream, said: str, done: bool
) -> None:
    standin.plan.append(stream)
    answer = await ask(client)
    text = answer.text.replace('data: {"choices": [{"index": 0, "delta": {"cont\n\n', "")
    assert words(httpx.Response(200, text=text)) == said
    assert answer.text.endswith("data: [DONE]\n\n") is done


@pytest.mark.parametrize("after", [None, 0, 3])
async def test_a_connection_is_cut_where_it_is_told(
    client: httpx.AsyncClient, standin: StandIn, after: int | None
) -> None:
    standin.plan.append(Stream("cut", after))
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(client)
    assert (standin.chats[0].status, standin.chats[0].words) == (0 if after is None else 200, after or 0)


@pytest.mark.parametrize("fault", [Fault.STALLED_BEFORE_HEAD, Fault.STALLED_FIRST, Fault.STALLED_AMID])
async def test_a_client_that_leaves_is_seen_to(client: httpx.AsyncClient, standin: StandIn, fault: Fault) -> None:
    standin.plan.append(fault)
    asking = asyncio.create_task(ask(client))
    seen = await standin.chat()
    asking.cancel()
    await seen.over.wait()
    assert seen.disconnected


async def test_what_stalls_does_not_keep_the_server_from_ending(standin: StandIn) -> None:
    standin.always = Fault.STALLED_FIRST
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as client:
        async with serving(standin) as base_url:
            asking = asyncio.create_task(client.post(f"{base_url}/chat/completions", json=_ASK))
            await standin.chat()
        with pytest.raises(httpx.RemoteProtocolError):
            await asking


@pytest.mark.parametrize("whole", [False, True])
async def test_what_is_postponed_is_there_for_the_last_poll(
    client: httpx.AsyncClient, standin: StandIn, whole: bool
) -> None:
    standin.plan.append(Later(polls=2, whole=whole))
    postponed = await ask(client)
    url = str(client.base_url).replace("/v1/", f"/v2/nvcf/pexec/status/{postponed.headers['nvcf-reqid']}")
    still, done, gone = [await client.get(url) for _ in range(3)]
    assert (postponed.status_code, postponed.content, still.status_code, still.content) == (202, b"", 202, b"")
    assert (done.json()["choices"][0]["message"]["content"] if whole else words(done)) == _WORDS
    assert gone.status_code == 404


async def test_what_is_postponed_may_fail_in_the_end(client: httpx.AsyncClient, standin: StandIn) -> None:
    standin.plan.append(Fault.LATER_FAILED)
    number = (await ask(client)).headers["nvcf-reqid"]
    polled = await client.get(str(client.base_url).replace("/v1/", f"/v2/nvcf/pexec/status/{number}"))
    assert polled.status_code == 500


async def test_a_plan_is_used_up_and_then_it_is_as_always(client: httpx.AsyncClient, standin: StandIn) -> None:
    standin.plan.extend([Fault.BROKEN, None])
    standin.always = iter([Fault.TIMED_OUT, Fault.NO_MODEL])
    assert [(await ask(client)).status_code for _ in range(4)] == [500, 200, 504, 404]


async def test_health_is_what_it_is_told(client: httpx.AsyncClient, standin: StandIn) -> None:
    standin.ready = False
    assert [(await client.get(f"health/{what}")).status_code for what in ("ready", "live")] == [503, 200]


async def test_models_are_listed(client: httpx.AsyncClient) -> None:
    listed = (await client.get("models")).json()
    assert [model["id"] for model in listed["data"]] == list(MODELS)


async def test_all_else_is_not_there(client: httpx.AsyncClient) -> None:
    assert (await client.post("embeddings", json={})).status_code == 404


def test_chance_is_the_same_for_the_same_seed() -> None:
    first, again = (list(islice(at_random(Random(7), 0.5), 200)) for _ in range(2))
    assert first == again
    assert 60 < first.count(None) < 140
    assert len({each for each in first if each is not None}) > 20
