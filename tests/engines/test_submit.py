"""A job as the worker gets it."""

import json

import pytest

from agent.contract.errors import Code, JobError
from agent.contract.jobs import Detail, Frame, Job, Message, PicturePart, TextPart
from agent.engines import translation, wire

CAT, DOG = b"the cat's file", b"the dog's"


def text(said: str) -> TextPart:
    return TextPart(type="text", text=said)


def asked(*messages: Message, frame: Frame | None = None) -> wire.Submit:
    job = Job(client="c", id="j", messages=messages, pictures=(CAT, DOG), camera="porch", frame=frame)
    return translation.submit(1, job)


def test_pictures_stand_where_their_message_has_them() -> None:
    cat, dog = (PicturePart(type="picture", index=index) for index in (0, 1))
    submit = asked(
        Message(role="system", content="Be brief."),
        Message(role="user", content=[text("One"), dog, text("and two"), cat]),
        Message(role="assistant", content="Yes."),
        Message(role="user", content=[dog]),
        Message(role="user", content=[text("a"), text("b")]),
    )

    assert [turn["content"] for turn in json.loads(submit.conversation)] == [
        "Be brief.",
        ["One", None, "and two", None],
        "Yes.",
        [None],
        "a\nb",
    ]
    assert [file for file, _ in submit.files] == [DOG, CAT, DOG]


def test_a_detail_is_a_number_of_crops() -> None:
    details: list[Detail] = ["low", "auto", "high"]
    parts = [PicturePart(type="picture", index=0, detail=detail) for detail in details]

    assert [most for _, most in asked(Message(role="user", content=[*parts])).files] == [1, 4, 16]


@pytest.mark.parametrize("frame", [None, Frame(), Frame(min_interval_s=2.0)])
def test_a_picture_is_looked_at_whatever_it_shows(frame: Frame | None) -> None:
    assert asked(Message(role="user", content=[text("?")]), frame=frame).camera is None


def test_a_frame_is_compared_with_those_of_the_same_client_and_camera() -> None:
    submit = asked(Message(role="user", content=[text("?")]), frame=Frame(similar_bits=0))

    assert (submit.camera, submit.similar_bits) == ("c/porch", 0)


def test_a_nul_beside_a_picture_is_refused() -> None:
    with pytest.raises(JobError) as refused:
        asked(Message(role="user", content=[PicturePart(type="picture", index=0), text("one\0two")]))

    assert refused.value.code == Code.BAD_REQUEST
