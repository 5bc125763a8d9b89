"""A second opinion: the engine against llmock, which others have written to break clients of such endpoints.

Its server runs as a process of its own, is told by HTTP what to do next, and has a verdict of its own on who asked.
"""

import asyncio
import subprocess
import sysconfig
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.contract.errors import Code, JobError
from agent.contract.events import Usage
from agent.contract.jobs import Job, Message
from agent.engines.base import Done, Text
from agent.engines.cloud.engine import CloudEngine
from agent.settings import Cloud
from tests.brokers import free_port

_MODEL = "microsoft/phi-3.5-mini-instruct"
_LLMOCK = Path(sysconfig.get_path("scripts")) / "llmock"
_START_S = 20.0


class Books:
    """A budget without bounds, and how many requests left."""

    def __init__(self) -> None:
        self.left = 0

    def refusal(self, _: Job) -> JobError | None:
        return None

    async def leaving(self, _: Job) -> None:
        self.left += 1

    def prompt_tokens(self, _: Job) -> int:
        return 0

    async def returned(self, job: Job, usage: Usage) -> None:
        pass


class Control:
    """What llmock is told, and what it has seen."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def plan(self, what: str, **fields: Any) -> None:
        """Have the next request meet something."""
        planned = await self._client.post("/_llmock/scenario", json={"behaviors": [{"type": what, **fields}]})
        planned.raise_for_status()

    async def attempts(self) -> int:
        """Return how many requests came."""
        verdict: dict[str, Any] = (await self._client.get("/_llmock/verdict")).json()
        return int(verdict["attempts"])

    async def findings(self) -> list[str]:
        """Return what it has to say about us, warnings among it."""
        verdict = (await self._client.get("/_llmock/verdict")).json()
        return [finding["code"] for finding in verdict["findings"]]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run llmock, and yield where it is."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("llmock") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([_LLMOCK, "serve", "--port", str(port)], stdout=out, stderr=out)
    try:
        given_up = time.monotonic() + _START_S
        while True:
            try:
                httpx.get(f"{address}/_llmock/verdict")
            except httpx.ConnectError:
                assert process.poll() is None and time.monotonic() < given_up, log.read_text()  # noqa: PT018
                time.sleep(0.05)  # it offers nothing to wait on but its port
            else:
                break
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def llmock(address: str) -> AsyncIterator[Control]:
    async with httpx.AsyncClient(base_url=address) as client:
        (await client.post("/_llmock/reset")).raise_for_status()
        yield Control(client)


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
async def engine(address: str, books: Books, llmock: Control) -> AsyncIterator[CloudEngine]:  # noqa: ARG001  it is reset
    # llmock has no health of NIM's; a llama.cpp server is asked at /health.
    settings = Cloud(enabled=True, preset="llamacpp", base_url=f"{address}/v1", text_model=_MODEL)
    engine = CloudEngine(settings, "key", books, lambda _: False, random=lambda: 0.0)
    serving = asyncio.create_task(engine.serve())
    while engine.health.state != "ready":
        await engine.changed()
    yield engine
    serving.cancel()
    await asyncio.wait({serving})


def job(**fields: Any) -> Job:
    return Job(client="dev7", id="j1", messages=(Message(role="user", content="Say something."),), **fields)


async def answer(engine: CloudEngine, asked: Job) -> tuple[str, Done]:
    """Run a job to its end, and return its words and how it ended."""
    words = ""
    async for event in engine.run(asked):
        if isinstance(event, Text):
            words += event.text
        elif isinstance(event, Done):
            return words, event
    raise AssertionError("it ended without Done")


async def failure(engine: CloudEngine, asked: Job) -> tuple[str, JobError]:
    """Run a job that fails, and return the words that came and the error."""
    words = ""
    try:
        async for event in engine.run(asked):
            if isinstance(event, Text):
                words += event.text
    except JobError as error:
        return words, error
    raise AssertionError("it did not fail")


async def test_an_answer_is_streamed_whole(engine: CloudEngine, llmock: Control) -> None:
    await llmock.plan("reply", text="Three hens, and a cow.")
    words, done = await answer(engine, job())
    assert (words, done.finish_reason) == ("Three hens, and a cow.", "stop")
    assert done.usage.completion_tokens > 0


@pytest.mark.parametrize("kind", ["delay", "slow_first_token"])
async def test_an_answer_may_take_its_time(engine: CloudEngine, llmock: Control, kind: str) -> None:
    await llmock.plan(kind, seconds=0.3)
    _, done = await answer(engine, job())
    assert done.cost is not None
    assert done.cost.prefill_s >= 0.3


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        (400, Code.CLOUD_REJECTED, "rejected"),
        (401, Code.CLOUD_UNAVAILABLE, "key"),
        (402, Code.CLOUD_UNAVAILABLE, "credits"),
        (403, Code.CLOUD_UNAVAILABLE, "key"),
        (404, Code.CLOUD_UNAVAILABLE, "model"),
        (413, Code.CLOUD_REJECTED, "rejected"),
        (422, Code.CLOUD_REJECTED, "rejected"),
    ],
)
async def test_what_cannot_succeed_is_asked_once(
    engine: CloudEngine, llmock: Control, status: int, code: Code, word: str
) -> None:
    await llmock.plan("fail", status=status)
    _, error = await failure(engine, job())
    assert (error.code, error.word) == (code, word)
    assert await llmock.attempts() == 1
    assert await llmock.findings() == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_may_pass_is_asked_again(engine: CloudEngine, llmock: Control, books: Books, status: int) -> None:
    await llmock.plan("fail", status=status)
    await answer(engine, job())
    assert await llmock.attempts() == books.left == 2
    assert await llmock.findings() == []


async def test_what_does_not_pass_is_given_up_after_a_few_attempts(engine: CloudEngine, llmock: Control) -> None:
    await llmock.plan("fail", status=500, times=None)
    _, error = await failure(engine, job())
    assert error.code == Code.CLOUD_UNAVAILABLE
    assert 1 < await llmock.attempts() <= 3
    assert await llmock.findings() == []


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_breaks_before_its_first_word_is_asked_for_again(
    engine: CloudEngine, llmock: Control, kind: str
) -> None:
    await llmock.plan("stream_fault", kind=kind, after_chunks=1)  # the first has the role, and no words
    await llmock.plan("reply", text="Three hens.", times=2)
    words, _ = await answer(engine, job())
    assert words == "Three hens."
    assert await llmock.attempts() == 2


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_breaks_after_words_is_no_answer_and_not_asked_for_again(
    engine: CloudEngine, llmock: Control, kind: str
) -> None:
    await llmock.plan("stream_fault", kind=kind, after_chunks=3)
    await llmock.plan("reply", text="Three hens, and a cow.")
    words, error = await failure(engine, job())
    assert words == "Three hens, "
    assert (error.code, error.word) == (Code.CLOUD_UNAVAILABLE, "truncated")
    assert await llmock.attempts() == 1


async def test_a_job_that_is_let_go_while_it_stalls_is_let_go_at_once(engine: CloudEngine, llmock: Control) -> None:
    await llmock.plan("stream_fault", kind="stall", after_chunks=2, stall_seconds=60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await answer(engine, job())
    # It tells what it has seen once that is over, and waits two seconds for it at the most.
    began = time.monotonic()
    assert await llmock.attempts() == 1
    assert time.monotonic() - began < 1
