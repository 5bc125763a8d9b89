"""A job on its way to disk and back, and what is read from a disk that lies."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.jobs import Frame, Job, JsonSchema, Message, PicturePart, Reply, ResponseFormat, Sampling, TextPart

names = st.text(st.sampled_from("abcXYZ019_-"), min_size=1, max_size=64)
# A lone surrogate cannot come in, since MQTT and JSON are read as UTF-8.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
contents = texts | st.lists(
    st.builds(TextPart, type=st.just("text"), text=texts)
    | st.builds(PicturePart, type=st.just("picture"), index=st.integers(0, 9)),
    min_size=1,
    max_size=3,
)
schemas = st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts, max_size=3)
formats = st.builds(ResponseFormat, type=st.just("json_object")) | st.builds(
    lambda schema: ResponseFormat(type="json_schema", json_schema=JsonSchema.model_validate({"schema": schema})),
    schemas,
)
jobs = st.builds(
    Job,
    client=names,
    id=names,
    messages=st.lists(
        st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=contents), max_size=3
    ).map(tuple),
    pictures=st.lists(st.binary(max_size=20), max_size=4).map(tuple),
    camera=st.none() | names,
    frame=st.none() | st.builds(Frame, min_interval_s=st.floats(0, 1e300), similar_bits=st.none() | st.integers(0, 64)),
    named=st.booleans(),
    model=st.none() | texts,
    sampling=st.builds(
        Sampling,
        temperature=st.none() | st.floats(0, 2),
        seed=st.none() | st.integers(0, 2**63 - 1),
        stop=st.lists(texts, max_size=8).map(tuple),
    ),
    response_format=st.none() | formats,
    stream=st.booleans(),
    priority=st.sampled_from(["low", "normal", "high"]),
    deadline_s=st.none() | st.floats(0, 2.0**32),
    placement=st.none() | st.sampled_from(["prefer_local", "local_only", "prefer_cloud", "cloud_only"]),
    private=st.booleans(),
    reply=st.builds(
        Reply, topic=st.none() | texts, pool=st.none() | names, correlation=st.none() | st.binary().map(bytes.hex)
    ),
)


@given(jobs)
def test_every_job_comes_back_from_disk_as_it_was(job: Job) -> None:
    assert Job.load(job.dump()) == job


@given(jobs, st.data())
def test_a_damaged_job_is_read_or_refused_and_nothing_else(job: Job, data: st.DataObject) -> None:
    stored = bytearray(job.dump())
    at = data.draw(st.integers(0, len(stored)))
    stored[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    with contextlib.suppress(ValueError):
        Job.load(bytes(stored))


@given(st.binary() | st.binary().map(lambda tail: b'{"client":"c","id":"j","messages":[]}\n' + tail))
def test_any_bytes_are_a_job_or_refused_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        Job.load(data)


@given(jobs.filter(lambda job: job.pictures))
def test_a_cut_within_its_pictures_is_noticed(job: Job) -> None:
    stored = job.dump()
    pictures = 4 + 4 * len(job.pictures) + sum(map(len, job.pictures))
    for cut in range(1, pictures + 1):
        with pytest.raises(ValueError, match="cut off"):
            Job.load(stored[:-cut])
