"""What goes over the wire and when: connections, TLS, the moment of leaving, and the end of it."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.engines.base import Event, Started, Text
from agent.standin import Fault, StandIn, Stream
from tests.brokers import free_port
from tests.cloud.asking import WORDS, job
from tests.cloud.conftest import Box, connected
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
    async with gate(base_url) as (url, came), connected(url) as box:
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
