"""Everything that tries to get a private byte out of the box through the cloud engine, against a bare socket."""

import asyncio
import base64
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.contract.errors import Code, JobError
from agent.contract.events import Usage
from agent.contract.jobs import Frame, Job, Message, PicturePart, Reply, TextPart
from agent.engines.base import Done
from agent.engines.cloud.engine import CloudEngine
from agent.settings import Cloud
from tests.cloud.recording import HANG_UP, PARIS, Recorder, answer, recording
from tests.cloud.telling import JPEG, SECRET, TELLING

KEY = "nvapi-THE-KEY"
MARKER = "MARKER-0123456789"


@dataclass
class Books:
    """Unlimited money, and a note of whatever leaves."""

    left: list[str] = field(default_factory=list)
    sick: bool = False

    def refusal(self, job: Job) -> None:
        """Refuse nothing."""

    async def leaving(self, job: Job) -> None:
        if self.sick:
            raise JobError(Code.CLOUD_UNAVAILABLE, "the disk is full", reason="disk")
        self.left.append(job.id)

    def prompt_tokens(self, job: Job) -> int:
        """Estimate nothing."""
        return len(job.id)

    async def returned(self, job: Job, usage: Usage) -> None:
        """Charge nothing."""


@dataclass
class Endpoint:
    """What a test has: the engine, and both ends of what it sends."""

    engine: CloudEngine
    wire: Recorder
    books: Books

    async def ask(self, job: Job) -> JobError | str:
        """Run a job; return its text, or why there is none."""
        text = ""
        try:
            async with aclosing(self.engine.run(job)) as events:
                async for event in events:
                    text += getattr(event, "text", "")
                    if isinstance(event, Done):
                        return text
        except JobError as error:
            return error
        raise AssertionError("the run has no end")


@pytest.fixture
async def elsewhere() -> AsyncIterator[Recorder]:
    """Listen at a place where nothing is ever to be sent."""
    async with recording() as recorder:
        yield recorder
        assert recorder.connections == 0


@asynccontextmanager
async def endpoint(
    keeps: Callable[[Job], bool] = lambda _: False, *, books: Books | None = None, **settings: Any
) -> AsyncIterator[Endpoint]:
    async with recording() as wire:
        cloud = Cloud(
            enabled=True,
            base_url=f"http://127.0.0.1:{wire.port}/v1",
            text_model="text-model",
            vision_model="vision-model",
            requests_per_minute=10_000,
            **settings,
        )
        books = books or Books()
        engine = CloudEngine(cloud, KEY, books, keeps, random=lambda: 0.0)
        serving = asyncio.create_task(engine.serve())
        while engine.health.state != "ready":
            await engine.changed()
        try:
            yield Endpoint(engine, wire, books)
        finally:
            serving.cancel()
            await asyncio.wait([serving])


def text_job(text: str = MARKER, **fields: Any) -> Job:
    return Job(**{"client": "dev7", "id": "j1", "messages": (Message(role="user", content=text),), **fields})


def picture_job(*pictures: bytes, **fields: Any) -> Job:
    parts: list[Any] = [PicturePart(type="picture", index=index) for index in range(len(pictures))]
    messages = (Message(role="user", content=[*parts, TextPart(type="text", text=MARKER)]),)
    return text_job(messages=messages, pictures=pictures, **fields)


HIDDEN = base64.b64encode(TELLING["exif"]).decode()
# What must stay whatever the box allows, and what must stay where it lets no picture out.
KEPT: dict[str, Job] = {
    "private": text_job(private=True),
    "private and cloud_only": text_job(private=True, placement="cloud_only"),
    "local_only": text_job(placement="local_only"),
    "private picture": picture_job(JPEG, private=True),
    "local_only frame": picture_job(JPEG, camera="porch", frame=Frame(), placement="local_only"),
    "picture in a text": text_job(f'{MARKER} <img src="data:image/jpeg;base64,{HIDDEN}" />'),
    "a policy of tomorrow": text_job().model_copy(update={"placement": "nowhere"}),
}
SEEN: dict[str, Job] = {
    "picture": picture_job(JPEG),
    "picture, cloud_only": picture_job(JPEG, placement="cloud_only"),
    "frame": picture_job(JPEG, camera="porch", frame=Frame()),
    "second of two messages": text_job(messages=(Message(role="user", content="x"), *picture_job(JPEG).messages)),
    "part without its picture": text_job(messages=picture_job(JPEG).messages),
    "question about a camera": text_job(camera="porch"),
}


@pytest.mark.parametrize("job", KEPT.values(), ids=KEPT.keys())
async def test_what_must_stay_here_is_refused_before_a_byte_of_it_leaves(job: Job) -> None:
    async with endpoint(frames_to_cloud="allowed") as found:
        before = found.wire.received
        refused = await found.ask(job)
        assert isinstance(refused, JobError)
        assert (refused.code, refused.word) == (Code.PRIVACY, "privacy")
        assert (found.wire.received, found.books.left) == (before, [])


async def test_what_a_camera_is_told_while_its_job_waits_counts() -> None:
    kept = {"porch"}
    async with endpoint(lambda job: job.camera in kept, frames_to_cloud="allowed") as found:
        before = found.wire.received
        assert isinstance(await found.ask(picture_job(JPEG, camera="porch")), JobError)
        assert found.wire.received == before
        assert await found.ask(picture_job(JPEG, camera="door")) == "Paris"


@pytest.mark.parametrize("job", SEEN.values(), ids=SEEN.keys())
async def test_where_no_picture_may_leave_none_does_nor_what_is_said_of_one(job: Job) -> None:
    async with endpoint() as found:
        before = found.wire.received
        refused = await found.ask(job)
        assert isinstance(refused, JobError)
        assert refused.code == Code.PRIVACY
        assert (found.wire.received, found.books.left) == (before, [])


@pytest.mark.parametrize("job", KEPT.values(), ids=KEPT.keys())
async def test_nor_does_one_where_everything_before_has_said_it_may(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CloudEngine, "refusal", lambda *_: None)
    async with endpoint(frames_to_cloud="allowed") as found:
        refused = await found.ask(job)
        assert isinstance(refused, JobError)
        assert refused.code == Code.PRIVACY
        assert (found.wire.heads, found.books.left) == ([], [])


@pytest.mark.parametrize("job", [text_job(), picture_job(JPEG)], ids=["text", "picture"])
async def test_the_recorder_would_have_seen_it(job: Job) -> None:
    async with endpoint(frames_to_cloud="allowed") as found:
        assert await found.ask(job) == "Paris"
        assert MARKER.encode() in found.wire.received
        assert found.books.left == ["j1"]


NEVER_SENT = {
    "client": "client-UNSENT",
    "id": "id-UNSENT",
    "camera": "camera-UNSENT",
    "frame": Frame(min_interval_s=12.5),
    "reply": Reply(topic="clients/topic-UNSENT", correlation=b"UNSENT".hex(), notice="notice-UNSENT"),
    "deadline_s": 77.125,
}


HEADERS = {
    b"host",
    b"accept",
    b"accept-encoding",
    b"connection",
    b"user-agent",
    b"content-type",
    b"content-length",
    b"authorization",
    b"nvcf-poll-seconds",  # how long the answer is still of use, rounded up
}


async def test_nothing_leaves_but_what_is_asked_and_how() -> None:
    async with endpoint(frames_to_cloud="allowed") as found:
        assert await found.ask(picture_job(JPEG, **NEVER_SENT)) == "Paris"
        ((head,), (body,)) = found.wire.heads, found.wire.bodies
        assert {line.partition(b":")[0].lower() for line in head.strip().split(b"\r\n")[1:]} <= HEADERS
        assert {*json.loads(body)} <= {"model", "messages", "max_tokens", "stream", "stream_options"}
        unsent = (b"UNSENT", b"UNSENT".hex().encode(), b"12.5", b"77.125")
        assert [each for each in unsent if each in found.wire.received] == []


async def test_a_picture_that_may_leave_tells_nothing_but_what_it_shows() -> None:
    async with endpoint(frames_to_cloud="allowed") as found:
        assert await found.ask(picture_job(*TELLING.values())) == "Paris"
        (body,) = found.wire.bodies
        parts = json.loads(body)["messages"][0]["content"]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        pictures = [base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) for url in urls]
        assert [picture[:3] for picture in pictures] == [b"\xff\xd8\xff"] * len(TELLING)
        assert not any(SECRET in each for each in (*pictures, found.wire.received))
        assert not any(base64.b64encode(file)[:200] in found.wire.received for file in TELLING.values())


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_job_is_not_carried_on_to_where_the_endpoint_points(status: str, elsewhere: Recorder) -> None:
    async with endpoint() as found:
        found.wire.answers.append(answer(status, f"Location: http://127.0.0.1:{elsewhere.port}/v1/chat/completions"))
        refused = await found.ask(text_job())
        assert isinstance(refused, JobError)
        assert refused.code == Code.CLOUD_UNAVAILABLE


@pytest.mark.parametrize(
    "where", ["@127.0.0.1:{port}/", "//127.0.0.1:{port}/", "../../../x", "http://127.0.0.1:{port}"]
)
async def test_nor_where_it_says_that_an_answer_will_be(where: str, elsewhere: Recorder) -> None:
    async with endpoint() as found:
        found.wire.answers.append(answer("202 Accepted", f"NVCF-REQID: {where.format(port=elsewhere.port)}"))
        found.wire.answers += [answer("500 No")] * 3
        assert isinstance(await found.ask(text_job()), JobError)
        assert b"pexec" not in found.wire.received


async def test_nor_through_what_the_environment_has_for_other_programs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, elsewhere: Recorder
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{elsewhere.port}")
    monkeypatch.setenv("NO_PROXY", "")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password netrc-secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with endpoint() as found:
        assert await found.ask(text_job()) == "Paris"
        assert b"Basic" not in found.wire.received


async def test_no_cookie_ties_one_job_to_the_next() -> None:
    async with endpoint() as found:
        found.wire.answers.append(PARIS.replace(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nSet-Cookie: who=box1\r\n"))
        assert [await found.ask(text_job()), await found.ask(text_job())] == ["Paris", "Paris"]
        assert b"who=box1" not in found.wire.received


async def test_what_cannot_be_noted_as_having_left_does_not_leave() -> None:
    async with endpoint() as found:
        found.books.sick = True
        before = found.wire.received
        refused = await found.ask(text_job())
        assert isinstance(refused, JobError)
        assert (refused.word, found.wire.received) == ("disk", before)


async def test_a_camera_that_is_made_private_while_its_job_connects_keeps_it() -> None:
    asked = 0

    def keeps(_: Job) -> bool:
        nonlocal asked
        asked += 1
        return asked > 2  # not yet at the first look, nor at the last before the connection

    async with endpoint(keeps) as found:
        before = found.wire.received
        refused = await found.ask(text_job())
        assert isinstance(refused, JobError)
        assert (refused.code, found.wire.received, found.books.left) == (Code.PRIVACY, before, [])


async def test_nor_does_it_leave_if_that_is_told_while_the_disk_notes_it() -> None:
    kept = False

    class Slow(Books):
        async def leaving(self, job: Job) -> None:
            nonlocal kept
            await super().leaving(job)
            kept = True

    async with endpoint(lambda _: kept, books=Slow()) as found:
        before = found.wire.received
        refused = await found.ask(text_job())
        assert isinstance(refused, JobError)
        assert (refused.code, found.wire.received) == (Code.PRIVACY, before)


REFUSED_USAGE = answer("400 Bad", body=b'{"detail": "stream_options is not supported"}')


async def test_nor_does_its_second_request_where_the_first_was_refused_for_counting() -> None:
    async with endpoint(lambda _: found.wire.heads != []) as found:
        found.wire.answers.append(REFUSED_USAGE)
        refused = await found.ask(text_job())
        assert isinstance(refused, JobError)
        assert (refused.code, len(found.wire.heads), found.books.left) == (Code.PRIVACY, 1, ["j1"])


async def test_the_key_is_not_shown_where_nobody_asks_for_it() -> None:
    async with endpoint() as found:
        assert found.wire.received.startswith(b"GET ")
        assert KEY.encode() not in found.wire.received


ECHO = json.dumps({"error": {"message": f"bad {KEY} for {MARKER}", "code": MARKER, "type": KEY, "title": KEY}}).encode()
FAULTS: dict[str, list[bytes]] = {
    "none": [],
    **{
        status: [answer(status, "Content-Type: application/json", body=ECHO)] * 3
        for status in (
            "400 Bad",
            "401 No",
            "402 Pay",
            "403 No",
            "404 No",
            "410 Gone",
            "413 Large",
            "422 Bad",
            "429 Many",
        )
    },
    **{status: [answer(status, body=ECHO)] * 3 for status in ("500 Oh", "502 Oh", "503 Oh", "504 Oh", "307 There")},
    "no HTTP": [ECHO + b"\r\n\r\n"] * 3,
    "no answer": [answer("200 OK", "Content-Type: text/html", body=ECHO)] * 3,
    "no kind": [answer("200 OK", f"Content-Type: text/{MARKER}", body=ECHO)] * 3,
    "error in the stream": [
        answer("200 OK", "Content-Type: text/event-stream", body=b"data: " + ECHO + b"\n\ndata: [DONE]\n\n")
    ]
    * 3,
    "nonsense in the stream": [answer("200 OK", "Content-Type: text/event-stream", body=b"data: {" + ECHO + b"\n\n")]
    * 3,
}


@pytest.mark.parametrize("answers", FAULTS.values(), ids=FAULTS.keys())
async def test_neither_the_key_nor_the_prompt_is_in_a_log_an_error_or_a_repr(
    answers: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with endpoint() as found:
        found.wire.answers += answers
        with structlog.testing.capture_logs() as logs:
            said = await found.ask(text_job())
        told = f"{logs} {caplog.text} {found.engine!r} {vars(said) if isinstance(said, JobError) else ''}"
        assert MARKER.encode() in found.wire.received
        assert KEY.lower() not in told.lower()
        assert MARKER.lower() not in told.lower()


# Faults after which a job is tried again, or given up for the box to do; too few of them to open the breaker.
PASSING = [answer("503 Busy"), answer("502 Bad"), answer("504 Late"), HANG_UP]


async def test_in_a_crowd_with_faults_what_arrives_is_what_may_and_what_left_is_what_arrived() -> None:
    dice = random.Random(5)
    jobs: dict[str, Job] = {}
    for number in range(150):
        name = f"crowd-{number:03}"
        pictures = (JPEG,) if dice.random() < 0.04 else ()
        make: Callable[..., Job] = picture_job if pictures else text_job
        job = make(
            *pictures,
            id=name,
            private=dice.random() < 0.3,
            placement=dice.choice([None, "prefer_local", "local_only", "prefer_cloud", "cloud_only"]),
        )
        messages = (*job.messages, Message(role="user", content=f"{name};"))
        jobs[name] = job.model_copy(update={"messages": messages})
    may = {name for name, job in jobs.items() if not job.private and job.placement != "local_only"}
    async with endpoint(frames_to_cloud="allowed", slots=16) as found:
        found.wire.answers += [PARIS] * 20 + [
            dice.choice(PASSING) if dice.random() < 0.1 else PARIS for _ in range(400)
        ]
        slots = asyncio.Semaphore(found.engine.slots)

        async def ask(job: Job) -> None:
            async with slots:
                await found.ask(job)

        await asyncio.gather(*map(ask, jobs.values()))
        arrived = {name for name in jobs if f"{name};".encode() in found.wire.received}
        assert arrived <= may
        assert arrived == {*found.books.left}
        assert len(arrived) > len(may) / 2
