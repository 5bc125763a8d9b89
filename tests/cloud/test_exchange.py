"""What goes over the wire and when: connections, TLS, the moment of leaving, and the end of it."""

import asyncio
import gzip
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from agent.contract.jobs import Sampling
from agent.engines.base import Event, Started, Text
from agent.engines.cloud import exchange
from agent.engines.cloud.connections import Connections
from agent.standin import Fault, StandIn, Stream
from tests.brokers import free_port
from tests.cloud.asking import WORDS, job
from tests.cloud.conftest import Box, connected
from tests.cloud.recording import PARIS, READY, answer, streamed
from tests.waiting import eventually


@asynccontextmanager
async def gate(base_url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, list[object]]]:
    """Open another door to the stand-in, and yield its URL and who came in."""
    host, port = base_url.removeprefix("http://").removesuffix("/v1").split(":")
    came: list[object] = []

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 16):
                sink.write(data)
        sink.close()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer.get_extra_info("peername"))
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async with await asyncio.start_server(enter, "127.0.0.1", 0, ssl=tls) as server:
        door = server.sockets[0].getsockname()[1]
        yield f"http{'s' if tls else ''}://127.0.0.1:{door}/v1", came


@asynccontextmanager
async def saying(
    said: bytes = PARIS, then: bytes = b"", health: bytes = READY, then_health: bytes = b""
) -> AsyncIterator[tuple[str, set[object]]]:
    """Answer every request with some bytes, and then with others for ever; yield the URL and who is there."""
    there: set[object] = set()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"content-length" in head.lower():
                    await reader.readuntil(b"}")
                first, ever = (health, then_health) if head.startswith(b"GET") else (said, then)
                writer.write(first)
                while ever:
                    writer.write(ever)
                    await writer.drain()
                    await asyncio.sleep(0)
        there.discard(writer)
        writer.close()

    async with await asyncio.start_server(enter, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", there


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate that nobody knows, with its key in one file."""
    file = tmp_path_factory.mktemp("tls") / "endpoint.pem"
    where = ("-keyout", str(file), "-out", str(file.with_suffix(".crt")))
    what = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    whose = ("-subj", "/CN=endpoint", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(["openssl", "req", "-x509", *what, *where, *whose], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + file.with_suffix(".crt").read_bytes())
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_one_connection_serves_one_job_after_another(base_url: str, standin: StandIn) -> None:
    async with gate(base_url) as (url, came), connected(url, preset="github") as box:
        for number in range(3):
            await box.answer(job(str(number)))
        assert (len(standin.chats), len(came)) == (3, 1)


async def test_a_certificate_of_an_unknown_authority_is_not_accepted(base_url: str, tls: ssl.SSLContext) -> None:
    async with gate(base_url, tls) as (url, _), connected(url, preset="azure") as box:
        _, error = await box.failure(job())
        assert (error.word, box.ledger.left) == ("network", [])
        assert "certificate is not accepted" in error.message


async def test_an_authority_of_the_system_is_trusted(
    base_url: str, tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with gate(base_url, tls) as (url, _), connected(url, preset="azure") as box:
        assert (await box.answer(job()))[0] == WORDS


async def test_an_endpoint_that_is_not_there_costs_no_egress() -> None:
    async with connected(f"http://127.0.0.1:{free_port()}/v1", preset="github") as box:
        _, error = await box.failure(job())
        assert (error.word, box.ledger.left) == ("network", [])


async def test_nothing_is_sent_before_the_books_know_that_it_leaves(box: Box, standin: StandIn) -> None:
    box.ledger.open.clear()
    running = asyncio.create_task(box.run(job()))
    await eventually(lambda: bool(box.ledger.left))
    assert standin.chats == []
    box.ledger.open.set()
    await running
    assert len(standin.chats) == 1


@pytest.mark.parametrize(("after", "words"), [(None, 0), (0, 0), (3, 3)])
async def test_cancelling_who_reads_closes_the_socket_at_once(
    box: Box, standin: StandIn, after: int | None, words: int
) -> None:
    standin.plan.append(Stream("stalled", after))
    running = asyncio.create_task(box.run(job()))
    seen = await standin.chat()
    await eventually(lambda: seen.words == words)
    running.cancel()
    async with asyncio.timeout(1.0):
        await seen.over.wait()
    assert seen.disconnected
    await asyncio.wait([running])
    assert running.cancelled()


@pytest.mark.parametrize("kind", [Started, Text])
async def test_closing_the_generator_closes_the_socket(box: Box, standin: StandIn, kind: type[Event]) -> None:
    standin.plan.append(Fault.STALLED_AMID)
    async with aclosing(box.engine.run(job())) as events:
        async for event in events:
            if isinstance(event, kind):
                break
    async with asyncio.timeout(1.0):
        await standin.chats[0].over.wait()
    assert standin.chats[0].disconnected


# Requests that are cut.


async def asked(connections: Connections, url: str) -> int:
    response = await connections.send("POST", url, {}, 1 << 20, b"{}")
    try:
        await response.aread()
    finally:
        await response.aclose()
    return response.status_code


async def cut_everywhere(connections: Connections, url: str) -> None:
    """Cancel hundreds of requests at all moments of their lives, some dozens of the loop's turns; early ones last."""

    async def cut(turns: int) -> None:
        asking = asyncio.create_task(asked(connections, url))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])

    for _ in range(10):
        for turns in range(60, 0, -4):
            await asyncio.gather(*map(cut, range(turns - 4, turns)))


async def test_requests_that_were_cut_leave_no_connection() -> None:
    async with saying() as (url, there), Connections.opened(with_tls=False) as connections:
        await cut_everywhere(connections, url)
        await eventually(lambda: not there)


async def test_requests_that_were_cut_keep_nobody_out() -> None:
    held = answer("200 OK")[:-2]
    async with saying() as (url, _), saying(held) as (other, _), Connections.opened(with_tls=False) as connections:
        under_way = asyncio.create_task(asked(connections, other))  # so that there is no better moment to clean up
        await cut_everywhere(connections, url)
        assert await asked(connections, url) == httpx.codes.OK
        under_way.cancel()
        await asyncio.wait([under_way])


async def test_what_is_under_way_outlives_another_that_is_cut(box: Box, standin: StandIn) -> None:
    standin.plan.extend([Stream("drip"), Stream("stalled", 0)])
    long = asyncio.create_task(box.answer(job("long")))
    await standin.chat(1)
    short = asyncio.create_task(box.answer(job("short")))
    await standin.chat(2)
    short.cancel()
    await asyncio.wait([short])
    assert (await long)[0] == WORDS


# Endpoints that mean ill, or do not know what they do.

_EVENTS = "Content-Type: text/event-stream"


@pytest.mark.parametrize("then", [b"x" * 65536, b": still here\n" * 4096, b"data: {}\n" * 8192, b"data: {}\n\n" * 8192])
async def test_an_answer_without_an_end_is_not_read_on(then: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\n{_EVENTS}\r\n\r\n".encode()
    async with saying(head, then) as (url, _), connected(url) as box, asyncio.timeout(10.0):
        _, error = await box.failure(job())
    assert error.word == "truncated"


async def test_an_answer_may_be_as_long_as_was_asked_for() -> None:
    async with saying(streamed(*["word " * 1000] * 300)) as (url, _), connected(url) as box:
        words, _ = await box.answer(job(sampling=Sampling(max_tokens=300)))
        _, error = await box.failure(job(sampling=Sampling(max_tokens=1)))
    assert (len(words), error.word) == (1_500_000, "truncated")


async def test_what_comes_compressed_is_not_undone() -> None:
    packed = gzip.compress(PARIS.partition(b"\r\n\r\n")[2])
    said = answer("200 OK", _EVENTS, "Content-Encoding: gzip", body=packed)
    async with saying(said) as (url, _), connected(url) as box:
        _, error = await box.failure(job())
    assert error.word == "truncated"


@pytest.mark.parametrize("charset", ["hex", "idna", "utf-16", "undefined", "nonsense"])
async def test_an_answer_is_utf_8_whatever_its_head_says(charset: str) -> None:
    said = PARIS.replace(b"event-stream", b"event-stream; charset=" + charset.encode())
    async with saying(said) as (url, _), connected(url) as box:
        assert (await box.answer(job()))[0] == "Paris"


# Whether it is ready.


@pytest.mark.parametrize("status", ["204 No Content", "302 Found", "401 Unauthorized", "404 Not Found"])
async def test_a_gateway_that_knows_no_health_is_no_hindrance(status: str) -> None:
    async with saying(health=answer(status)) as (url, _), connected(url) as box:
        assert (await box.answer(job()))[0] == "Paris"


async def test_a_server_that_still_loads_is_not_ready() -> None:
    async with saying(health=answer("503 Service Unavailable")) as (url, _), connected(url, wait=False) as box:
        await eventually(lambda: box.engine.health.detail is not None)
        refused = box.engine.refusal(job())
    assert refused is not None
    assert refused.word == "not_ready"


async def test_of_a_health_only_the_status_is_read() -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    async with (
        saying(health=head, then_health=b"x" * 65536) as (url, there),
        asyncio.timeout(exchange._PROBE_S),
        connected(url),
    ):
        await eventually(lambda: not there)


async def test_a_health_without_an_end_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_PROBE_S", 0.1)
    hint = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with saying(health=hint, then_health=hint) as (url, _), connected(url, wait=False) as box:
        await eventually(lambda: "cannot be reached" in (box.engine.health.detail or ""))
