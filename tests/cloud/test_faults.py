"""What an endpoint answers besides answers is read as what it is."""

import json
from typing import Any

import httpx
import pytest

from agent.contract.errors import Code
from agent.engines.cloud import faults
from agent.engines.cloud.breaker import Fault

_DEGRADED = {
    "type": "about:blank",
    "status": 400,
    "title": "Bad Request",
    "detail": "DEGRADED function cannot be invoked",
}
_EXHAUSTED = {"status": 503, "title": "ResourceExhausted", "detail": "Worker local total request limit reached"}


def answered(status: int, said: Any = b"", **headers: str) -> faults.Failed:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return faults.answered(status, {name.replace("_", "-"): text for name, text in headers.items()}, body, 0.0)


@pytest.mark.parametrize(
    ("status", "said", "fault"),
    [
        (400, _DEGRADED, Fault("model", transient=True, word="not_ready")),
        (401, b"", Fault("key", transient=False, word="key")),
        (403, {"detail": "Authorization failed"}, Fault("key", transient=False, word="key")),
        (402, b"", Fault("key", transient=False, word="credits")),
        (404, {"error": {"message": "no such model"}}, Fault("model", transient=False, word="model")),
        (410, {"title": "Gone", "status": 410}, Fault("model", transient=False, word="model")),
        (408, b"", Fault("provider", transient=True, word="timeout")),
        (429, b"", Fault("provider", transient=False, word="rate_limit")),
        (400, {"error": {"message": "no"}}, Fault("request", transient=False, word="rejected")),
        (400, {"code": "invalid_image_format"}, Fault("request", transient=False, word="rejected")),
        (413, b"<html>", Fault("request", transient=False, word="rejected")),
        (422, {"detail": [{"loc": ["body"]}]}, Fault("request", transient=False, word="rejected")),
        (500, b"", Fault("provider", transient=True, word="not_ready")),
        (502, b"<html>bad gateway", Fault("provider", transient=True, word="not_ready")),
        (503, b"", Fault("provider", transient=True, word="not_ready")),
        (503, _EXHAUSTED, Fault("model", transient=True, word="not_ready")),
        (504, b"", Fault("provider", transient=True, word="timeout")),
        (307, b"", Fault("provider", transient=False, word="network")),
    ],
)
def test_a_status_is_a_fault_of_its_scope(status: int, said: Any, fault: Fault) -> None:
    assert answered(status, said).fault == fault


def test_a_model_out_of_service_for_hours_is_shut_for_them() -> None:
    fault = answered(503, retry_after="10800").fault
    assert fault == Fault("model", transient=False, word="not_ready", retry_after_s=10800.0)


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, Code.CLOUD_REJECTED, False),
        (422, Code.CLOUD_REJECTED, False),
        (401, Code.CLOUD_UNAVAILABLE, True),
        (503, Code.CLOUD_UNAVAILABLE, True),
    ],
)
def test_a_client_reads_whether_to_send_it_again(status: int, code: Code, retryable: bool) -> None:
    error = answered(status).error()
    assert (error.code, error.as_dict()["retryable"]) == (code, retryable)


@pytest.mark.parametrize(
    ("status", "passes"),
    [(400, False), (401, False), (402, False), (404, False), (410, False), (422, False), (429, True), (502, True)],
)
def test_what_passes_by_itself_may_be_tried_again(status: int, passes: bool) -> None:
    assert answered(status).passes == passes


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0.5"}, 0.5),
        ({"retry_after": "Thu, 01 Jan 1970 00:00:09 GMT"}, 9.0),
        ({"retry_after": "Mon, 23 Nov 2026 00:00:09 GMT", "date": "Mon, 23 Nov 2026 00:00:04 GMT"}, 5.0),
        ({"retry_after": "Mon, 23 Nov 2026 00:00:00 GMT", "date": "Mon, 23 Nov 2026 00:00:04 GMT"}, 0.0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "Mon, 01 Jan 2026 00:00:00 +99999999999999999"}, None),
        ({"retry_after": "5", "date": "Mon, 01 Jan 2026 00:00:00 +99999999999999999"}, 5.0),
        ({"retry_after": "99999999999999999999"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_endpoints_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert answered(429, **headers).fault.retry_after_s == seconds


@pytest.mark.parametrize(
    "said",
    [
        {"error": {"message": "stream_options is not supported by this model"}},
        {"detail": "Unknown field: include_usage"},
        {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]},
        {"error": {"message": "unknown parameter", "param": "stream_options.include_usage"}},
    ],
)
def test_that_usage_is_not_counted_is_told_from_other_refusals(said: Any) -> None:
    assert answered(400, said).uncounted
    assert not answered(400, {"detail": "no"}).uncounted


def test_a_request_that_is_quoted_says_nothing_of_usage() -> None:
    quoted = {"loc": ["body", "temperature"], "msg": "too high", "input": {"stream_options": {"include_usage": True}}}
    assert not answered(422, {"detail": [quoted]}).uncounted


@pytest.mark.parametrize(
    "said",
    [
        b"no: DEGRADED function",
        {"error": {"message": "the prompt was: DEGRADED function"}},
        {"detail": [{"loc": ["body"], "msg": "no", "input": "DEGRADED function"}]},
    ],
)
def test_a_prompt_that_is_quoted_does_not_make_a_model_degraded(said: Any) -> None:
    assert answered(400, said).fault == Fault("request", transient=False, word="rejected")


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"error": {"message": "x", "code": 500}}, Fault("provider", transient=True, word="not_ready")),
        ({"error": {"message": "x", "code": "429"}}, Fault("provider", transient=True, word="not_ready")),
        ({"error": {"message": "x", "code": 429}}, Fault("provider", transient=False, word="rate_limit")),
        ({"status": 400, "detail": "DEGRADED function"}, Fault("model", transient=True, word="not_ready")),
        ({"error": {"code": 400, "type": "exceed_context_size_error"}}, Fault("request", False, "rejected")),  # noqa: FBT003
        ({"error": "out of memory"}, Fault("provider", transient=True, word="not_ready")),
        ({"error": ["?"]}, Fault("provider", transient=True, word="not_ready")),
    ],
)
def test_an_error_in_a_stream_is_read_by_its_code(said: Any, fault: Fault) -> None:
    assert faults.streamed(said).fault == fault


@pytest.mark.parametrize(
    ("error", "answering", "word"),
    [
        (httpx.ConnectError("refused"), False, "network"),
        (httpx.ConnectTimeout(""), False, "network"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] expired"), False, "network"),
        (httpx.RemoteProtocolError("gone"), False, "network"),
        (httpx.ReadTimeout(""), False, "timeout"),
        (httpx.ReadTimeout(""), True, "timeout"),
        (httpx.RemoteProtocolError("gone"), True, "truncated"),
        (httpx.ReadError(""), True, "truncated"),
    ],
)
def test_a_broken_connection_is_a_passing_fault(error: httpx.HTTPError, answering: bool, word: str) -> None:
    assert faults.broken(error, answering=answering).fault == Fault("provider", transient=True, word=word)


def test_a_certificate_that_is_not_accepted_is_said() -> None:
    assert "certificate" in faults.broken(httpx.ConnectError("CERTIFICATE_VERIFY_FAILED"), answering=False).sentence


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
def test_what_the_endpoint_quotes_is_repeated_to_nobody(status: int) -> None:
    said = {"error": {"message": "the prompt was: my secret", "code": "my secret", "type": "my secret"}}
    failed = answered(status, said)
    assert "my secret" not in f"{failed.error()} {failed.detail} {failed!r}"


@pytest.mark.parametrize("name", ["code", "type", "title"])
def test_a_code_that_nobody_knows_may_be_the_prompt_and_is_not_for_the_log(name: str) -> None:
    assert answered(400, {"error": {name: "xylophone"}}).detail is None


def test_nor_is_a_kind_of_content() -> None:
    assert (faults.unlike("text/xylophone").detail, faults.unlike("text/html").detail) == (None, "text/html")


def test_a_code_that_is_known_is_for_the_log() -> None:
    assert answered(400, {"error": {"code": "invalid_image_format", "message": "…"}}).detail == "invalid_image_format"


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[" * 100_000, b"null", b'"x"', b"{", b'{"error": null}'])
def test_no_body_is_too_odd_to_be_a_fault(body: bytes) -> None:
    assert answered(500, body).fault.word == "not_ready"
