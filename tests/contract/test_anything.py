"""Whatever is sent, to every reader of the contract that has no other file of its own here: a value comes of it."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cameras import Cameras
from agent.contract import headers
from agent.contract.jobs import Job, Message
from agent.contract.messages import Inbound
from agent.contract.requests import Defaults, read_cancel, read_request
from agent.contract.sources import Source
from agent.contract.topics import Kind, Route, Topics, is_identifier
from agent.settings import Camera
from tests.contract.pictures import GIF, JPEG, PNG
from tests.contract.test_requests import LIMITS, MADE

TOPICS = Topics("slm", "box1")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
levels = st.text(max_size=6) | st.sampled_from(
    ["slm", "box1", "req", "text", "image", "cancel", "dev7", "+", "#", "$x"]
)
topics = st.lists(levels, max_size=8).map("/".join)
properties = st.dictionaries(
    st.sampled_from(["prompt", "model", "max_tokens", "priority", "placement", "stream", "detail", "other"]),
    st.text(max_size=8) | st.sampled_from(["5", "true", "high", "²", "9" * 50]),
)
pictures = st.tuples(
    st.sampled_from([JPEG, PNG, GIF]), st.integers(0, 1000), st.integers(0, 4), st.binary(max_size=4)
).map(lambda made: made[0][: made[1]] + made[3] + made[0][made[1] + made[2] :])


@given(
    payload=st.binary(max_size=100) | pictures | st.text().map(str.encode),
    kind=st.sampled_from([Kind.TEXT, Kind.IMAGE]),
    correlation=st.none() | st.binary(max_size=300),
    response_topic=st.none() | topics | topics.map("clients/dev7/".__add__),
    expiry_s=st.none() | st.integers(0, 2**32 - 1),
    sent=properties,
    prompt=st.none() | st.text(min_size=1),
)
def test_whatever_its_properties_a_request_is_answered_under_an_id_and_where_its_client_may_hear(
    payload: bytes,
    kind: Kind,
    correlation: bytes | None,
    response_topic: str | None,
    expiry_s: int | None,
    sent: dict[str, str],
    prompt: str | None,
) -> None:
    message = Inbound("unused", payload, correlation, response_topic, expiry_s, sent)
    route = Route(kind, "dev7", "porch" if kind is Kind.IMAGE else None)
    found = read_request(message, route, TOPICS, LIMITS, MADE, Defaults({} if prompt is None else {"prompt": prompt}))

    assert is_identifier(found.key.id)
    assert found.reply.topic is None or found.reply.topic.startswith(("clients/dev7/", "slm/box1/res/dev7/"))
    if isinstance(found, Job):
        assert all(isinstance(each, Message) for each in Job.load(found.dump()).messages)


@given(st.binary(max_size=80) | values.map(json.dumps).map(str.encode), st.none() | st.binary(max_size=70))
def test_a_cancel_names_an_identifier_or_nothing(payload: bytes, correlation: bytes | None) -> None:
    found = read_cancel(Inbound("unused", payload, correlation))
    assert found is None or is_identifier(found)


@given(topics | topics.map("slm/box1/".__add__), st.sampled_from([TOPICS.read, TOPICS.read_camera_config]))
def test_what_is_read_from_a_topic_leads_back_to_it(topic: str, read: Callable[[str], Route | str | None]) -> None:
    found = read(topic)
    if isinstance(found, Route):
        assert TOPICS.request(found.client, found.kind, found.camera) == topic
    elif found is not None:
        assert TOPICS.camera_config(found) == topic


@given(topics, st.sampled_from(["f/{camera}/+/snapshot", "f/{camera}/#", "{camera}", "+/{camera}", "#"]))
def test_a_source_reads_identifiers_alone(topic: str, pattern: str) -> None:
    found = Source("frigate", pattern, None if "{camera}" in pattern else "porch").read(topic)
    assert found is None or (found.camera is not None and is_identifier(found.camera) and found.client == "frigate")


@given(
    st.sampled_from(["porch", "yard"]),
    st.binary(max_size=40)
    | st.dictionaries(st.sampled_from([*Camera.model_fields, "other"]), values, max_size=4)
    .map(json.dumps)
    .map(str.encode),
)
def test_whatever_a_camera_is_told_its_policy_stands_or_is_a_good_one(camera: str, payload: bytes) -> None:
    cameras = Cameras({"porch": Camera(prompt="Who?", private=True)}, {})
    before = cameras.defaults(camera, "dev7")
    problem = cameras.tell(camera, payload)
    after = cameras.defaults(camera, "dev7")

    assert problem is None or after == replace(before, fields={**before.fields, "private": after.fields["private"]})
    assert problem is None or after.fields["private"]
    assert camera != "porch" or after.fields["private"]


@given(pictures | st.binary(max_size=60).map(PNG[:16].__add__) | st.binary(max_size=60).map(b"\xff\xd8\xff".__add__))
def test_whatever_a_file_says_of_itself_it_has_a_size_or_is_refused(data: bytes) -> None:
    try:
        found = headers.read(data)
    except headers.HeaderError:
        return
    assert found.width >= 0 <= found.height
    assert found.format in ("JPEG", "PNG", "GIF")


@pytest.mark.parametrize("data", [JPEG, PNG, GIF])
def test_no_beginning_of_a_picture_is_taken_for_all_of_it(data: bytes) -> None:
    def refused(cut: int) -> bool:
        try:
            headers.read(data[:cut])
        except headers.HeaderError:
            return True
        return False

    assert all(refused(cut) for cut in range(len(data)))


def chunks(*names: bytes) -> bytes:
    """Return a PNG whose chunks are empty, after its size."""
    return PNG[:33] + b"".join(b"\0\0\0\0" + name + b"\0\0\0\0" for name in names)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (chunks(*[b"tEXt"] * 40, b"IDAT", b"IEND"), "its header has more than 32 chunks"),
        (chunks(*[b"IDAT"] * 5000, b"IEND"), "it has more than 4,096 chunks"),
        (PNG[:12] + b"IDAT" + PNG[16:], "its header has no size"),
        (GIF[:13] + b"\0" * 100, "its header has no size"),
        (GIF[:6] + b"\1", "it is cut off within its header"),
    ],
)
def test_a_header_that_leads_nowhere_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(headers.HeaderError, match=sentence):
        headers.read(data)
