"""A job's words on their way out, on a real loop with a transport that can refuse."""

import asyncio
import json

from agent.contract.jobs import Job, Message, Reply
from agent.contract.messages import Outgoing
from agent.contract.topics import Topics
from agent.publisher import Stream

TOPICS = Topics("slm", "box1")
# Long enough that only an explicit flush can come within a test.
NEVER = 3600.0


class Transport:
    def __init__(self) -> None:
        self.open = True
        self.sent: list[Outgoing] = []
        self.arrived = asyncio.Event()

    def send(self, out: Outgoing) -> bool:
        if self.open:
            self.sent.append(out)
            self.arrived.set()
        return self.open

    @property
    def chunks(self) -> list[tuple[int, str]]:
        bodies = [json.loads(out.payload) for out in self.sent]
        return [(body["seq"], body["text"]) for body in bodies]


def job(*, stream: bool = True, reply: Reply | None = None) -> Job:
    message = Message(role="user", content="x")
    return Job(client="dev7", id="j1", messages=(message,), stream=stream, reply=reply or Reply())


def stream_to(transport: Transport, flush_s: float = NEVER, asked: Job | None = None) -> Stream:
    return Stream(asked or job(), 1, TOPICS, transport.send, flush_s)


async def test_the_first_words_go_at_once() -> None:
    transport = Transport()
    stream_to(transport).add("Hello")
    assert transport.chunks == [(0, "Hello")]


async def test_later_words_are_gathered() -> None:
    transport = Transport()
    stream = stream_to(transport)
    for word in ("a", "b", "c"):
        stream.add(word)
    stream.close()
    assert transport.chunks == [(0, "a"), (1, "bc")]


async def test_gathered_words_go_out_by_themselves_in_time() -> None:
    transport = Transport()
    stream = stream_to(transport, flush_s=0.01)
    stream.add("a")
    transport.arrived.clear()
    stream.add("b")
    await transport.arrived.wait()
    assert transport.chunks == [(0, "a"), (1, "b")]


async def test_words_that_cannot_go_out_go_with_the_next_chunk_and_leave_no_gap() -> None:
    transport = Transport()
    stream = stream_to(transport, flush_s=0.0)
    transport.open = False
    stream.add("a")
    stream.add("b")
    transport.open = True
    stream.add("c")
    assert transport.chunks == [(0, "abc")]


async def test_what_gathered_over_an_outage_goes_out_in_chunks_that_any_broker_takes() -> None:
    transport = Transport()
    stream = stream_to(transport, flush_s=0.0)
    transport.open = False
    stream.add("a" * 600)
    transport.open = True
    stream.add("b" * 100)
    assert [(seq, len(text)) for seq, text in transport.chunks] == [(0, 256), (1, 256), (2, 188)]
    assert "".join(text for _, text in transport.chunks) == stream.text


async def test_the_whole_text_is_there_for_the_final_whatever_went_out() -> None:
    transport = Transport()
    transport.open = False
    stream = stream_to(transport)
    stream.add("a")
    stream.add("b")
    stream.close()
    assert (stream.text, stream.seq) == ("ab", 0)


async def test_a_job_that_wants_no_stream_gets_no_chunks() -> None:
    transport = Transport()
    stream = stream_to(transport, asked=job(stream=False))
    stream.add("a")
    stream.close()
    assert (transport.sent, stream.text) == ([], "a")


async def test_an_abandoned_attempt_says_nothing_more() -> None:
    transport = Transport()
    stream = stream_to(transport)
    stream.add("a")
    stream.add("b")
    stream.abandon()
    stream.close()
    assert transport.chunks == [(0, "a")]


async def test_chunks_are_best_effort_on_the_jobs_own_topic() -> None:
    transport = Transport()
    stream_to(transport).add("a")
    assert (transport.sent[0].topic, transport.sent[0].qos) == ("slm/box1/res/dev7/j1/chunk", 0)


async def test_on_a_response_topic_a_property_tells_events_apart_and_correlation_is_echoed() -> None:
    transport = Transport()
    asked = job(reply=Reply(topic="clients/dev7/in", correlation="00ff"))
    stream_to(transport, asked=asked).add("a")
    out = transport.sent[0]
    assert (out.topic, out.correlation, out.properties) == ("clients/dev7/in", b"\x00\xff", (("event", "chunk"),))
