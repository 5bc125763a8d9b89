import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines import wire
from agent.engines.wire import Decoder, Message, WireError, encode

_counts = st.integers(0, 2**40)
_seconds = st.floats(0, 1e6)
_maybe = st.none() | st.floats(0, 2)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        wire.Submit,
        _counts,
        st.none() | _counts,
        _maybe,
        _maybe,
        st.none() | _counts,
        st.none() | st.integers(0, 2**63 - 1),
        st.lists(st.text(min_size=1), max_size=3).map(tuple),
        st.none() | st.text(),
        st.lists(st.tuples(_counts, _counts), max_size=3).map(tuple),
        st.none() | st.text(),
        st.integers(0, 64),
        st.binary(),
    ),
    st.builds(wire.Cancel, _counts),
    st.builds(wire.Canceled, _counts, _counts),
    st.builds(wire.Ready, _counts, st.text(), st.floats(0, 1e6)),
    st.builds(wire.Failed, st.text()),
    st.builds(wire.Started, _counts, _counts, _counts, _counts),
    st.builds(wire.Similar, _counts, _counts),
    st.builds(wire.Progress, _counts, st.booleans()),
    st.builds(wire.Text, _counts, _counts, st.binary(min_size=1)),
    st.builds(wire.Done, _counts, st.sampled_from(["stop", "length"]), *[_counts] * 5, _seconds, _seconds),
    st.builds(wire.Refused, _counts, st.text(), st.text(), _counts),
)


@given(st.lists(messages), st.lists(st.integers(1, 200)))
def test_messages_come_back_as_they_were_wherever_the_stream_is_cut(sent: list[Message], cuts: list[int]) -> None:
    stream = b"".join(encode(message) for message in sent)
    decoder = Decoder()
    came: list[Message] = []
    for cut in cuts:
        came += decoder.feed(stream[:cut])
        stream = stream[cut:]
    came += decoder.feed(stream)

    assert came == sent


@given(messages)
def test_a_message_is_there_with_its_last_byte_and_not_before(sent: Message) -> None:
    frame = encode(sent)
    decoder = Decoder()

    assert list(decoder.feed(frame[:-1])) == []
    assert list(decoder.feed(frame[-1:])) == [sent]


@pytest.mark.parametrize(
    "garbage",
    [
        b"what a library printed\n",
        b"[1]\n",
        b'{"type":"Nonsense"}\n',
        b'{"type":"Cancel"}\n',
        b'{"type":"Submit"}\n',
        b'{"type":"Submit","job":1,"stop":[],"pictures":[1]}\n',
        b'{"type":"Cancel","job":1,"what":2}\n',
        b'{"type":"Text","job":1,"length":-1}\n',
        b'{"type":"Text","job":1,"length":"2"}\n',
        b'{"type":"Text","job":1,"length":99999999999}\n',
        b'{"type":"Text","job":1,"completion":1,"payload":"words"}\n',
        b"[" * 200_000 + b"\n",
        b"9" * 10_000 + b"\n",
    ],
)
def test_what_is_no_frame_is_refused(garbage: bytes) -> None:
    with pytest.raises(WireError):
        list(Decoder().feed(garbage))


@given(st.lists(messages, min_size=1), st.data())
def test_a_damaged_stream_is_refused_or_read_and_nothing_else(sent: list[Message], data: st.DataObject) -> None:
    stream = bytearray(b"".join(encode(message) for message in sent))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream)))
        stream[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    decoder = Decoder()
    with contextlib.suppress(WireError):
        came = list(decoder.feed(bytes(stream)))
        assert len(came) <= stream.count(b"\n")


def test_a_large_payload_in_small_pieces_is_not_gathered_anew_with_each() -> None:
    frame = encode(wire.Text(1, 1, bytes(16 << 20)))
    decoder = Decoder()
    started = time.thread_time()
    came = [each for at in range(0, len(frame), 4096) for each in decoder.feed(frame[at : at + 4096])]
    assert time.thread_time() - started < 1  # 0.04 s here; with a copy for each piece it takes 20 s
    assert len(came) == 1


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_first_line_without_an_end_is_not_gathered_for_ever(end: bytes) -> None:
    with pytest.raises(WireError):
        list(Decoder().feed(b"x" * (wire.MAX_HEADER + 1) + end))


@given(st.binary(), st.lists(st.tuples(st.binary(), st.integers(1, 16)), max_size=4))
def test_a_jobs_pictures_are_what_comes_after_its_conversation(
    conversation: bytes, files: list[tuple[bytes, int]]
) -> None:
    lengths = tuple((len(file), most) for file, most in files)
    submit = wire.Submit(1, pictures=lengths, payload=b"".join([conversation, *(file for file, _ in files)]))

    assert submit.conversation == conversation
    assert list(submit.files) == files


@given(messages)
def test_a_frame_is_partial_until_its_last_byte(sent: Message) -> None:
    frame = encode(sent)
    decoder = Decoder()
    list(decoder.feed(frame[:-1]))

    assert decoder.partial
    list(decoder.feed(frame[-1:]))
    assert not decoder.partial


def test_a_message_that_the_other_side_would_refuse_is_not_sent() -> None:
    with pytest.raises(WireError):
        encode(wire.Submit(1, payload=bytes(wire.MAX_PAYLOAD + 1)))
