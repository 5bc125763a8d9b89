"""What a client may send, and what it is told when it sends something else."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.contract.body import Body, Bounds
from agent.contract.errors import Code
from agent.contract.jobs import Frame, Job, Key, Message, PicturePart, Reply, Sampling, TextPart
from agent.contract.messages import Inbound
from agent.contract.requests import Defaults, Limits, Refusal, read_cancel, read_request
from agent.contract.sources import Source
from agent.contract.topics import Kind, Route, Topics, is_identifier
from tests.contract.pictures import GIF, JPEG, PNG, plain, text

TOPICS = Topics("slm", "box1")
LIMITS = Limits(text_bytes=64_000, image_bytes=64_000, pictures=Bounds(3, 10_000))
ROUTE = Route(Kind.TEXT, "dev7")
PORCH = Route(Kind.IMAGE, "dev7", "porch")
MADE = "made-id"


def read(
    payload: bytes | dict[str, Any],
    route: Route = ROUTE,
    defaults: Defaults | None = None,
    limits: Limits = LIMITS,
    **properties: Any,
) -> Job | Refusal:
    data = json.dumps(payload).encode() if isinstance(payload, dict) else payload
    return read_request(Inbound("unused", data, **properties), route, TOPICS, limits, MADE, defaults or Defaults())


def job(payload: bytes | dict[str, Any], **properties: Any) -> Job:
    found = read(payload, **properties)
    assert isinstance(found, Job), found
    return found


def refusal(payload: bytes | dict[str, Any], **properties: Any) -> Refusal:
    found = read(payload, **properties)
    assert isinstance(found, Refusal), found
    return found


def test_plain_text_is_the_prompt() -> None:
    assert job(b"How warm is it?").messages == (Message(role="user", content="How warm is it?"),)


@pytest.mark.parametrize(
    "payload", [b"\xef\xbb\xbfHi", b'\xef\xbb\xbf{"prompt":"Hi"}', b'\xef\xbb\xbf \n{"prompt":"Hi"}']
)
def test_a_byte_order_mark_is_no_part_of_a_request(payload: bytes) -> None:
    assert job(payload).messages[0].text == "Hi"


def test_plain_text_that_is_a_json_value_but_no_object_is_the_prompt() -> None:
    assert job(b"[1, 2]").messages[0].text == "[1, 2]"


def test_every_field_of_the_contract_reaches_the_job() -> None:
    found = job(
        {
            "id": "j1",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            "model": "m",
            "max_tokens": 5,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
            "seed": 7,
            "stop": ["\n"],
            "response_format": {"type": "json_object"},
            "stream": False,
            "priority": "high",
            "deadline_s": 3,
            "placement": "local_only",
            "private": True,
        }
    )
    assert found.model_dump(exclude={"reply", "messages"}) == {
        "client": "dev7",
        "id": "j1",
        "camera": None,
        "frame": None,
        "named": True,
        "model": "m",
        "sampling": {
            "max_tokens": 5,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
            "seed": 7,
            "stop": ("\n",),
        },
        "response_format": {"type": "json_object", "json_schema": None},
        "stream": False,
        "priority": "high",
        "deadline_s": 3.0,
        "placement": "local_only",
        "private": True,
    }


def test_a_job_survives_the_way_to_disk_and_back() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    found = job({"prompt": "Hi", "stop": "x", "response_format": schema}, correlation=b"\x00\xff")
    assert Job.load(found.dump()) == found


def test_one_stop_string_is_a_list_of_one() -> None:
    assert job({"prompt": "Hi", "stop": "END"}).sampling.stop == ("END",)


def test_content_parts_keep_their_text_and_their_pictures_in_order() -> None:
    content = [
        {"type": "text", "text": "first"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text(PNG)}", "detail": "low"}},
        {"type": "text", "text": "last"},
        {"type": "image_url", "image_url": {"url": text(JPEG)}},
    ]
    found = job({"messages": [{"role": "user", "content": content}], "detail": "high"})
    assert found.messages[0].content == [
        TextPart(type="text", text="first"),
        PicturePart(type="picture", index=0, detail="low"),
        TextPart(type="text", text="last"),
        PicturePart(type="picture", index=1, detail="high"),
    ]
    assert found.pictures == (PNG, JPEG)


def test_a_turn_of_texts_alone_is_kept_as_one_text() -> None:
    content = [{"type": "text", "text": "first"}, {"type": "text", "text": "last"}]
    assert job({"messages": [{"role": "user", "content": content}]}).messages[0].content == "first\nlast"


@pytest.mark.parametrize("name", sorted(set(Body.model_fields) - {"prompt"}))
def test_null_is_the_same_as_leaving_a_field_out(name: str) -> None:
    assert job({"prompt": "Hi", name: None}) == job({"prompt": "Hi"})


def test_a_null_prompt_is_none() -> None:
    assert refusal({"prompt": None}).error.message == "give a `prompt` or `messages`"


def test_a_name_that_is_unknown_is_refused_with_null_too() -> None:
    assert refusal({"prompt": "x", "max_token": None}).error.message.startswith("unknown field `max_token`")


def test_pictures_go_before_the_prompt_in_their_order() -> None:
    found = job({"prompt": "What is it?", "images": [text(PNG), text(GIF)]}, route=PORCH)
    pictures = [PicturePart(type="picture", index=index, detail="auto") for index in (0, 1)]
    assert found.messages[0].content == [*pictures, TextPart(type="text", text="What is it?")]
    assert (found.pictures, found.camera, found.frame) == ((PNG, GIF), "porch", None)


@pytest.mark.parametrize("payload", [{"image": text(PNG)}, {}])
def test_nothing_asked_is_refused(payload: dict[str, Any]) -> None:
    assert refusal(payload).error.message == "give a `prompt` or `messages`"


@pytest.mark.parametrize("payload", [PNG, {"image": text(PNG)}])
def test_a_camera_of_which_nothing_is_asked_is_refused_and_told_the_three_ways(payload: Any) -> None:
    assert refusal(payload, route=PORCH).error.message == (
        "nothing is asked about the camera porch: set `cameras.porch.prompt` on the box, publish one to "
        "slm/box1/config/camera/porch, or send a `prompt` (with a raw frame, as an MQTT 5 property)"
    )


def test_an_image_request_without_a_picture_is_refused() -> None:
    assert refusal({"prompt": "x"}, route=PORCH).error.message == (
        "an image request needs a picture: `image`, `images`, or image_url parts in its `messages`"
    )


ASKED = Defaults({"prompt": "Who is it?", "detail": "low", "max_tokens": 9, "priority": "low"}, Frame(min_interval_s=2))


def test_a_raw_frame_is_asked_what_its_camera_is_asked() -> None:
    found = job(JPEG, route=PORCH, defaults=ASKED)
    picture = PicturePart(type="picture", index=0, detail="low")
    assert found == Job(
        client="dev7",
        id=MADE,
        messages=(Message(role="user", content=[picture, TextPart(type="text", text="Who is it?")]),),
        pictures=(JPEG,),
        camera="porch",
        frame=Frame(min_interval_s=2),
        named=False,
        sampling=Sampling(max_tokens=9),
        priority="low",
    )


def test_a_raw_frames_user_properties_go_over_its_cameras() -> None:
    found = job(JPEG, route=PORCH, defaults=ASKED, properties={"prompt": "What?", "detail": "high", "max_tokens": "5"})
    assert found.messages[0].text == "What?"
    assert found.messages[0].content[0] == PicturePart(type="picture", index=0, detail="high")
    assert (found.sampling.max_tokens, found.priority) == (5, "low")


def test_a_json_jobs_fields_go_over_its_cameras() -> None:
    found = job({"image": text(PNG), "prompt": "What?", "max_tokens": None}, route=PORCH, defaults=ASKED)
    assert (found.messages[0].text, found.sampling.max_tokens, found.frame) == ("What?", 9, None)


def test_messages_take_the_place_of_a_cameras_prompt() -> None:
    content = [{"type": "image_url", "image_url": {"url": text(PNG)}}]
    found = job({"messages": [{"role": "user", "content": content}]}, route=PORCH, defaults=ASKED)
    assert found.messages == (Message(role="user", content=[PicturePart(type="picture", index=0, detail="low")]),)


@pytest.mark.parametrize(
    ("camera", "asked", "found"),
    [
        ({"private": True}, {"private": False}, (True, None)),
        ({"private": False}, {"private": True}, (True, None)),
        ({"placement": "local_only"}, {"placement": "cloud_only"}, (False, "local_only")),
        ({"placement": "prefer_cloud"}, {"placement": "local_only"}, (False, "local_only")),
    ],
)
def test_what_keeps_a_cameras_pictures_on_the_box_is_not_undone_by_a_request(
    camera: dict[str, Any], asked: dict[str, Any], found: tuple[bool, str | None]
) -> None:
    job_ = job({"image": text(PNG), "prompt": "x", **asked}, route=PORCH, defaults=Defaults(camera))
    assert (job_.private, job_.placement) == found


def test_an_id_from_the_correlation_data_makes_a_frame_repeatable() -> None:
    found = job(JPEG, route=PORCH, defaults=ASKED, correlation=b"f1")
    assert (found.id, found.named) == ("f1", True)


@pytest.mark.parametrize(
    ("images", "code"),
    [
        ([text(PNG)] * 4, Code.TOO_LARGE),
        (["AAAA"] * 100, Code.TOO_LARGE),
        (["AAAA"], Code.BAD_REQUEST),
        ([text(plain(101, 100))], Code.TOO_LARGE),
        ([f"data:image/gif;base64,{text(PNG)}"], Code.BAD_REQUEST),
    ],
)
def test_pictures_that_cannot_be_used_are_refused_under_the_requests_id(images: list[str], code: Code) -> None:
    found = refusal({"id": "j1", "prompt": "x", "images": images}, route=PORCH)
    assert (found.key.id, found.error.code, found.camera) == ("j1", code, "porch")


def test_pictures_are_counted_over_all_messages() -> None:
    content = [{"type": "image_url", "image_url": {"url": text(PNG)}}] * 2
    found = refusal({"messages": [{"role": "user", "content": content}] * 2}, route=PORCH)
    assert found.error.message == "the request has 4 pictures or more, and may have 3"


@pytest.mark.parametrize("count", [1, 3])
def test_pictures_survive_the_way_to_disk_and_back(count: int) -> None:
    found = job({"prompt": "x\n", "images": [text(PNG)] * count}, route=PORCH, defaults=ASKED)
    assert Job.load(found.dump()) == found


@pytest.mark.parametrize("cut", [1, len(PNG), len(PNG) + 3])
def test_pictures_that_are_cut_off_on_disk_are_no_job(cut: int) -> None:
    with pytest.raises(ValueError, match="cut off"):
        Job.load(job(PNG, route=PORCH, defaults=ASKED).dump()[:-cut])


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (b"", "the request is empty: send a prompt, or a JSON object with one"),
        (b"  \n", "the request is empty: send a prompt, or a JSON object with one"),
        (b"\xff\xfe", "a text request is UTF-8 text or a JSON object, and this is neither"),
        ({}, "give a `prompt` or `messages`"),
        ({"prompt": ""}, "`prompt`: string should have at least 1 character"),
        ({"prompt": 5}, "`prompt`: input should be a valid string"),
        (
            {"prompt": "x", "messages": [{"role": "user", "content": "x"}]},
            "give either `prompt` or `messages`, not both",
        ),
        ({"prompt": "x", "image": "AAAA", "images": ["AAAA"]}, "give either `image` or `images`, not both"),
        (
            {"messages": [{"role": "user", "content": "x"}], "image": "AAAA"},
            "with `messages`, put pictures into their content as image_url parts",
        ),
        ({"messages": []}, "`messages`: list should have at least 1 item after validation, not 0"),
        (
            {"messages": [{"role": "user", "content": ""}]},
            "`messages.0.content`: string should have at least 1 character",
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "`messages.0.role`: input should be 'system', 'user' or 'assistant'",
        ),
        ({"prompt": "x", "max_tokens": 0}, "`max_tokens`: input should be greater than or equal to 1"),
        ({"prompt": "x", "max_tokens": "5"}, "`max_tokens`: input should be a valid integer"),
        ({"prompt": "x", "max_tokens": True}, "`max_tokens`: input should be a valid integer"),
        ({"prompt": "x", "temperature": 3}, "`temperature`: input should be less than or equal to 2"),
        ({"prompt": "x", "top_p": 0}, "`top_p`: input should be greater than 0"),
        ({"prompt": "x", "stop": [""]}, "`stop.0`: string should have at least 1 character"),
        ({"prompt": "x", "stop": [1]}, "`stop.0`: input should be a valid string"),
        ({"prompt": "x", "stream": "yes"}, "`stream`: input should be a valid boolean"),
        ({"prompt": "x", "priority": "urgent"}, "`priority`: input should be 'low', 'normal' or 'high'"),
        ({"prompt": "x", "deadline_s": -1}, "`deadline_s`: input should be greater than 0"),
        ({"prompt": "x", "max_token": 5}, "unknown field `max_token`; did you mean `max_tokens`?"),
        (
            {"prompt": "x", "response_format": {"type": "json_schema"}},
            "`json_schema` goes with response_format type `json_schema`, and only there",
        ),
        *(
            ({"messages": [{"role": "user", "content": content}]}, sentence)
            for content, sentence in (
                (5, "`messages.0.content`: input should be a valid string"),
                ([], "`messages.0.content`: list should have at least 1 item after validation, not 0"),
                ([5], "`messages.0.content.0`: input should be a valid dictionary or object to extract fields from"),
                ([{}], "`messages.0.content.0`: a part needs the `type` text or image_url"),
                ([{"type": "x" * 1000}], "`messages.0.content.0`: a part needs the `type` text or image_url"),
                ([{"type": "text"}], "`messages.0.content.0.text`: field required"),
                ([{"type": "text", "text": 5}], "`messages.0.content.0.text`: input should be a valid string"),
                (
                    [{"type": "text", "text": "x", "image_url": {"url": "x"}}],
                    "`messages.0.content.0.image_url`: extra inputs are not permitted",
                ),
                (
                    [{"type": "image_url", "image_url": {"url": 5}}],
                    "`messages.0.content.0.image_url.url`: input should be a valid string",
                ),
                (
                    [{"type": "text", "text": "x"}] * 257,
                    "`messages.0.content`: list should have at most 256 items after validation, not 257",
                ),
            )
        ),
        (b'{"prompt": "x"', "the request is not valid JSON: EOF while parsing an object at line 1 column 14"),
        (b'{"prompt": "x", "temperature": NaN}', "the request is not valid JSON: expected value at line 1 column 32"),
        (b'{"prompt": "x", "temperature": 1e999}', "`temperature`: input should be a finite number"),
        (b'{"prompt": "\\ud800"}', "the request is not valid JSON: unexpected end of hex escape at line 1 column 19"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(payload: bytes | dict[str, Any], sentence: str) -> None:
    assert (refusal(payload).error.code, refusal(payload).error.message) == (Code.BAD_REQUEST, sentence)


def test_an_unknown_field_without_a_neighbour_is_told_what_is_known() -> None:
    assert "known are deadline_s, detail, id, image" in refusal({"prompt": "x", "zzz": 1}).error.message


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        ({"messages": [{"role": "user", "contnet": "x"}]}, "`messages.0.contnet`; did you mean `content`?"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "my-text[0]": "x"}]}]},
            "`messages.0.content.0.my-text[0]`; known are image_url, text, type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"uri": "x"}}]}]},
            "`messages.0.content.0.image_url.uri`; did you mean `url`?",
        ),
        (
            {"prompt": "x", "response_format": {"type": "text", "my-key": 1}},
            "`response_format.my-key`; known are json_schema, type",
        ),
        (
            {"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {"shema": {}}}},
            "`response_format.json_schema.shema`; did you mean `schema`?",
        ),
    ],
)
def test_an_unknown_field_inside_is_named_with_its_place(payload: dict[str, Any], sentence: str) -> None:
    assert refusal(payload).error.message == f"unknown field {sentence}"


def test_the_names_inside_a_schema_are_its_own() -> None:
    schema = {"type": "object", "url": {"messages": [{"zzz": 1}]}}
    found = job({"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}})
    assert found.response_format is not None
    assert found.response_format.json_schema is not None
    assert found.response_format.json_schema.schema_ == schema


@pytest.mark.parametrize("payload", [{"k" * 50_000: 1}, {"prompt": "x", "response_format": {"k" * 50_000: 1}}])
def test_a_sentence_stays_a_sentence_whatever_was_sent(payload: dict[str, Any]) -> None:
    assert len(refusal(payload).error.message) < 300


def test_an_error_in_reading_a_stored_job_does_not_show_it() -> None:
    with pytest.raises(ValidationError) as caught:
        Job.load(b'{"client":"c","id":"j","messages":[{"role":"user","content":["secret"]}]}')
    assert "secret" not in str(caught.value)


def test_deep_nesting_is_refused() -> None:
    assert refusal(b'{"prompt":' + b"[" * 60_000).error.code is Code.BAD_REQUEST


def test_an_oversize_request_is_refused_by_its_size_under_the_id_that_comes_first() -> None:
    found = refusal(b'{"id": "big", "prompt": "' + b"x" * 100_000 + b'"}')
    assert (found.key, found.error.code) == (Key("dev7", "big"), Code.TOO_LARGE)


@pytest.mark.parametrize("payload", [JPEG, {"image": text(JPEG), "prompt": "x"}])
def test_an_image_request_is_held_to_the_size_of_an_image(payload: Any) -> None:
    limits = Limits(text_bytes=100, image_bytes=10_000, pictures=LIMITS.pictures)
    assert isinstance(read(payload, PORCH, ASKED, limits), Job)
    found = read(payload, PORCH, ASKED, replace(limits, image_bytes=200))
    assert isinstance(found, Refusal)
    assert found.error.code is Code.TOO_LARGE


@pytest.mark.parametrize("bad", ["a/b", "+", "#", "", "x" * 65, "ä", 5, ["j1"]])
def test_an_id_that_is_no_identifier_is_refused_under_a_new_one(bad: object) -> None:
    found = refusal({"id": bad, "prompt": "x"})
    assert (found.key.id, found.error.code) == (MADE, Code.BAD_REQUEST)


def test_a_request_without_an_id_gets_one() -> None:
    assert job({"prompt": "x"}).id == MADE


@pytest.mark.parametrize(
    "payload",
    [
        b'{"id": "j1", "prompt": 5}',
        b'{"id": "j1", "prompt": "cut off here',
        b'{"prompt": "x", "id": "j1", "messages": [1,',
        b'\xef\xbb\xbf{"prompt": "x", "id": "j1", "messages": [1,',
    ],
)
def test_a_refusal_goes_under_the_id_that_can_still_be_read(payload: bytes) -> None:
    assert refusal(payload).key == Key("dev7", "j1")


def test_correlation_data_that_is_an_identifier_is_the_id() -> None:
    assert job({"prompt": "x"}, correlation=b"req-1").id == "req-1"


def test_the_id_in_the_body_goes_before_correlation_data() -> None:
    assert job({"id": "j1", "prompt": "x"}, correlation=b"req-1").id == "j1"


def test_correlation_data_that_is_no_identifier_is_only_echoed() -> None:
    found = job({"prompt": "x"}, correlation=b"\x00\x01")
    assert (found.id, found.reply.correlation) == (MADE, "0001")


def test_correlation_data_of_256_bytes_is_echoed() -> None:
    assert job(b"x", correlation=b"\xff" * 256).reply == Reply(correlation="ff" * 256)


def test_longer_correlation_data_is_not_echoed_and_the_final_will_say_so() -> None:
    notice = "the correlation data was not echoed: it is longer than 256 bytes"
    assert job(b"x", correlation=b"\xff" * 257).reply == Reply(notice=notice)


def test_all_that_is_not_done_is_told_in_one_notice() -> None:
    reply = job(b"x", correlation=b"\xff" * 257, response_topic="home/#").reply
    assert reply.notice == (
        "the response topic was not used: it holds a wildcard; "
        "the correlation data was not echoed: it is longer than 256 bytes"
    )


def test_message_expiry_is_the_deadline() -> None:
    assert job(b"x", expiry_s=7).deadline_s == 7.0


def test_the_earlier_of_expiry_and_deadline_holds() -> None:
    assert job({"prompt": "x", "deadline_s": 3}, expiry_s=7).deadline_s == 3.0


def test_user_properties_serve_raw_payloads() -> None:
    found = job(b"x", properties={"max_tokens": "5", "stream": "false", "priority": "low", "traceparent": "00-ab"})
    assert (found.sampling.max_tokens, found.stream, found.priority) == (5, False, "low")


def test_a_raw_payload_is_private_by_its_property_and_refused_if_that_cannot_be_read() -> None:
    assert job(b"x", properties={"private": "true"}).private
    assert refusal(b"x", properties={"private": "yes"}).error.code is Code.BAD_REQUEST


def test_the_property_private_holds_beside_json_too() -> None:
    assert job({"prompt": "x", "private": False}, properties={"private": "true"}).private
    assert job({"prompt": "x", "private": True}, properties={"private": "false"}).private


def test_a_wrong_user_property_is_refused_by_name() -> None:
    assert (
        refusal(b"x", properties={"max_tokens": "many"}).error.message
        == "`max_tokens`: input should be a valid integer"
    )


@pytest.mark.parametrize("topic", ["slm/box1/res/dev7/mine", "clients/dev7/inbox/1"])
def test_a_response_topic_of_the_clients_own_is_used(topic: str) -> None:
    assert job(b"x", response_topic=topic).reply.topic == topic


@pytest.mark.parametrize(
    "topic",
    [
        "slm/box1/res/dev8/x",
        "slm/box1/req/dev7/text",
        "slm/box1/res/dev7/",
        "slm/box1/res/dev70/x",
        "clients/dev7/#",
        "clients/dev7/+/x",
        "clients/dev7/\0",
        "clients/dev7/\x7f",
        "clients/dev7/\uffff",
        "clients/dev7/" + "x" * 256,
        "clients/dev7/" + "/" * 230,
        "home/door/open",
        "",
    ],
)
def test_any_other_response_topic_is_not_used_and_the_final_will_say_so(topic: str) -> None:
    reply = job(b"x", response_topic=topic).reply
    assert reply.topic is None
    assert str(reply.notice).startswith("the response topic was not used: ")


def test_what_is_no_picture_and_no_json_is_refused_on_the_image_topic() -> None:
    assert refusal(b"Hi", route=PORCH).error.message == "an image request is a JPEG, a PNG or a JSON object"


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b"j1", "j1"),
        (b" j1\n", "j1"),
        (b'{"id": "j1"}', "j1"),
        (b'{"id": 5}', None),
        (b"{", None),
        (b"a/b", None),
        (b"\xff", None),
        (b"x" * 2000, None),
    ],
)
def test_a_cancel_names_an_id_bare_or_in_json(payload: bytes, found: str | None) -> None:
    assert read_cancel(Inbound("unused", payload)) == found


def test_an_empty_cancel_means_its_correlation_data() -> None:
    assert read_cancel(Inbound("unused", b"", correlation=b"j1")) == "j1"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["id", "prompt", "messages", "stop", "image", "images", "response_format", "stream", "seed"])


@given(st.binary(max_size=200) | st.dictionaries(names, json_values, max_size=4).map(lambda d: json.dumps(d).encode()))
def test_whatever_arrives_is_a_job_or_a_refusal_with_a_publishable_id(payload: bytes) -> None:
    found = read(payload)
    assert is_identifier(found.key.id)
    assert isinstance(found, Job) or found.error.message


@given(st.text(max_size=80))
def test_no_topic_makes_the_reader_stumble(tail: str) -> None:
    route = TOPICS.read(f"slm/box1/req/{tail}")
    assert route is None or is_identifier(route.client)


@pytest.mark.parametrize(
    ("topic", "route"),
    [
        ("slm/box1/req/dev7/text", Route(Kind.TEXT, "dev7")),
        ("slm/box1/req/dev7/cancel", Route(Kind.CANCEL, "dev7")),
        ("slm/box1/req/dev7/image/porch", Route(Kind.IMAGE, "dev7", "porch")),
        ("slm/box1/req/dev7/image", None),
        ("slm/box1/config/camera/porch", None),
        ("slm/box1/req/de v7/text", None),
        ("slm/box2/req/dev7/text", None),
        ("slm/box1/res/dev7/j1/final", None),
    ],
)
def test_request_topics_are_read(topic: str, route: Route | None) -> None:
    assert TOPICS.read(topic) == route


@pytest.mark.parametrize(
    ("topic", "camera"),
    [
        ("slm/box1/config/camera/porch", "porch"),
        ("slm/box1/config/camera/a/b", None),
        ("slm/box1/config/camera/", None),
        ("slm/box2/config/camera/porch", None),
    ],
)
def test_config_topics_are_read(topic: str, camera: str | None) -> None:
    assert TOPICS.read_camera_config(topic) == camera


FRIGATE = Source("frigate", "frigate/{camera}/+/snapshot")


@pytest.mark.parametrize(
    ("source", "topic", "camera"),
    [
        (FRIGATE, "frigate/porch/person/snapshot", "porch"),
        (FRIGATE, "frigate/porch/person", None),
        (FRIGATE, "frigate/porch/person/snapshot/x", None),
        (FRIGATE, "frigate/po rch/person/snapshot", None),
        (FRIGATE, "other/porch/person/snapshot", None),
        (Source("lab", "lab/cam/jpg", "lab1"), "lab/cam/jpg", "lab1"),
        (Source("lab", "lab/{camera}/#"), "lab/den", "den"),
        (Source("lab", "lab/{camera}/#"), "lab/den/a/b", "den"),
        (Source("lab", "lab/{camera}/#"), "lab", None),
    ],
)
def test_a_sources_topics_are_read(source: Source, topic: str, camera: str | None) -> None:
    assert source.read(topic) == (None if camera is None else Route(Kind.IMAGE, source.client, camera))


def test_a_source_subscribes_to_every_camera() -> None:
    assert FRIGATE.filter == "frigate/+/+/snapshot"


def test_a_request_whose_properties_cannot_be_read_is_refused_under_its_id() -> None:
    refused = refusal({"id": "j1", "prompt": "x"}, readable=False)
    assert (refused.key.id, refused.error.code) == ("j1", Code.BAD_REQUEST)
    assert "properties cannot be read" in refused.error.message
