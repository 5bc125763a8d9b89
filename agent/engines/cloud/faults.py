"""What an attempt failed of: statuses, bodies and broken connections, read as faults.

Of what an endpoint says, nothing but codes that are known is repeated, to nobody: all else may quote the prompt.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx

from agent.contract.errors import Code, JobError
from agent.engines.cloud.breaker import Fault

_LATER = "try again later, or let the job run on the box"
_TRUNCATED = f"the cloud's answer broke off: {_LATER}"
# 503 for hours, as NVIDIA announces it: the model is out of service. For less, it is a gateway that restarts.
_OUT_OF_SERVICE_S = 60.0
# What is logged of what an endpoint says, in the words of OpenAI, NVIDIA and llama.cpp. Anything else may be a prompt
# of one word, or the key.
_CODES = frozenset(
    {
        *("invalid_request_error", "unsupported_parameter", "unsupported_value", "BadRequestError"),
        *("invalid_image_format", "context_length_exceeded", "exceed_context_size_error", "content_filter"),
        *("invalid_api_key", "authentication_error", "permission_error", "insufficient_quota"),
        *("model_not_found", "not_found_error", "NotFoundError", "DeploymentNotFound", "unknown_model"),
        *("rate_limit_exceeded", "rate_limit_error", "RateLimitReached", "ResourceExhausted"),
        *("server_error", "api_error", "internal_error", "InternalServerError", "unavailable_error"),
        *("text/html", "text/plain"),
    }
)


@dataclass(eq=False)
class Failed(Exception):  # noqa: N818  it tells what happened; what a client reads is made of it
    """An attempt failed.

    Attributes:
        fault: for the breaker.
        sentence: for the job's client.
        status: the HTTP status, where there was one.
        detail: the endpoint's own short code for it, if it is one that is known, for the log.
        uncounted: whether it was refused for asking to have its usage counted, and may be sent without.

    """

    fault: Fault
    sentence: str
    status: int | None = None
    detail: str | None = None
    uncounted: bool = False

    @property
    def passes(self) -> bool:
        """Whether the same request may soon succeed."""
        return self.fault.transient or self.fault.word == "rate_limit"

    def error(self) -> JobError:
        """Return it as the job's client reads it."""
        code = Code.CLOUD_REJECTED if self.fault.scope == "request" else Code.CLOUD_UNAVAILABLE
        return JobError(code, self.sentence, self.fault.retry_after_s, reason=self.fault.word)


def answered(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failed:
    """Read an answer that is none.

    Args:
        status: its HTTP status, not 200 or 202.
        headers: by their names in lower case.
        body: what it says, or the beginning of it; often empty.
        now: the wall clock, in seconds, for a Retry-After that names a date.

    """
    problem = _problem(body)
    failed = _of_status(status, problem, retry_after_s(headers, now))
    failed.detail = problem.code
    return failed


def streamed(error: object) -> Failed:
    """Read an error that came inside a stream, after a 200: its status is its code, if it has one at all."""
    problem = _Problem.of(error)
    failed = _of_status(problem.status or 500, problem, None)
    failed.detail = problem.code
    return failed


def truncated(detail: str) -> Failed:
    """Return the fault of an answer that ended before its end, or that nobody can read."""
    return Failed(Fault("provider", transient=True, word="truncated"), _TRUNCATED, detail=detail)


def unlike(kind: str) -> Failed:
    """Return the fault of a 200 that is no answer of a model, but say a hotel's login page."""
    sentence = "what answers at cloud.base_url is no chat completions endpoint: check the address and the box's network"
    return Failed(Fault("provider", transient=False, word="network"), sentence, 200, _known(kind))


def timed_out() -> Failed:
    """Return the fault of an endpoint that says nothing for too long."""
    return Failed(Fault("provider", transient=True, word="timeout"), f"the cloud did not answer in time: {_LATER}")


def broken(error: httpx.HTTPError, *, answering: bool) -> Failed:
    """Read a broken connection; ``answering`` is whether the answer had begun."""
    detail = type(error).__name__
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        failed = timed_out()
        failed.detail = detail
        return failed
    if answering:
        return truncated(detail)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        sentence = "the cloud's certificate is not accepted: check the box's clock, its authorities, and cloud.base_url"
        return Failed(Fault("provider", transient=True, word="network"), sentence, detail="certificate")
    sentence = "the cloud cannot be reached: check the box's network and cloud.base_url, or let the job run on the box"
    return Failed(Fault("provider", transient=True, word="network"), sentence, detail=detail)


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Read a Retry-After, seconds or a date; in seconds, None where there is none that can be read.

    A date is meant by the clock of who sent it, where that is known: a box may not have the time yet.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
        return float(value)
    until = _date(value)
    if until is None:
        return None
    return max(0.0, until - (_date(headers.get("date", "")) or now))


def _date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class _Problem:
    """What an error says of itself, in whichever of the field's shapes."""

    status: int | None = None
    code: str | None = None
    text: str = ""
    detail: str = ""

    @classmethod
    def of(cls, said: object) -> "_Problem":
        """Read OpenAI's ``{"error": {…}}``, problem+json, and what some make of them."""
        inner = said.get("error", said) if isinstance(said, dict) else said
        if not isinstance(inner, dict):
            return cls(text=inner if isinstance(inner, str) else "")
        numbers = (inner.get(name) for name in ("status", "code", "status_code"))
        status = next((each for each in numbers if type(each) is int and 400 <= each < 600), None)  # noqa: PLR2004
        codes = (_known(inner.get(name)) for name in ("code", "type", "title"))
        text = (inner.get(name) for name in ("detail", "message", "title", "param"))
        return cls(status, next(filter(None, codes), None), " ".join(map(_text, text)), _text(inner.get("detail")))


def _problem(body: bytes) -> _Problem:
    try:
        return _Problem.of(json.loads(body))
    except (ValueError, RecursionError):
        return _Problem(text=body.decode("utf-8", "replace"))


def _text(value: Any) -> str:  # noqa: ANN401  it is somebody else's JSON
    """Return what is said; of a list of what is wrong with a request, without the request that many add as `input`."""
    if isinstance(value, list):
        said = [each.get(name) for each in value if isinstance(each, dict) for name in ("loc", "msg")]
        return " ".join(map(str, said))
    return value if isinstance(value, str) else ""


def _known(value: object) -> str | None:
    return value if isinstance(value, str) and value in _CODES else None


def _of_status(status: int, problem: _Problem, retry_s: float | None) -> Failed:  # noqa: PLR0911  one for each kind
    def fault(scope: Literal["provider", "key", "model", "request"], word: str, *, transient: bool = False) -> Fault:
        return Fault(scope, transient, word, retry_s)

    if status in (401, 403):
        return Failed(fault("key", "key"), "the cloud does not take this box's key: give the box a valid one", status)
    if status == 402:  # noqa: PLR2004
        return Failed(fault("key", "credits"), "the cloud account of this box has no credits left: add some", status)
    if status in (404, 410):
        sentence = (
            f"the cloud does not serve the model asked for ({status}): set cloud.text_model or cloud.vision_model"
        )
        return Failed(fault("model", "model"), sentence, status)
    if status == 429:  # noqa: PLR2004
        return Failed(fault("provider", "rate_limit"), f"the cloud takes no more requests for now: {_LATER}", status)
    if status in (408, 504):
        return Failed(fault("provider", "timeout", transient=True), timed_out().sentence, status)
    if status == 400 and "DEGRADED" in problem.detail:  # noqa: PLR2004  NVIDIA's word for a model that is being mended
        return Failed(fault("model", "not_ready", transient=True), _busy(status), status)
    if 400 <= status < 500:  # noqa: PLR2004
        return _rejected(status, problem)
    if status >= 500:  # noqa: PLR2004
        return _of_server(status, problem, retry_s)
    # What is moved elsewhere is not sent there: nobody has said that the job may go to that place.
    sentence = "the endpoint at cloud.base_url has moved or needs a login: set the address that it has now"
    return Failed(fault("provider", "network"), sentence, status)


def _rejected(status: int, problem: _Problem) -> Failed:
    uncounted = "stream_options" in problem.text or "include_usage" in problem.text
    if status == 413 or problem.code == "invalid_image_format":  # noqa: PLR2004
        what = "it is too large, or has a picture in a format that the cloud does not know: send less"
    else:
        what = "change it, or let it run on the box"
    sentence = f"the cloud refused the request as it is ({status}): {what}"
    return Failed(Fault("request", transient=False, word="rejected"), sentence, status, uncounted=uncounted)


def _of_server(status: int, problem: _Problem, retry_s: float | None) -> Failed:
    if "ResourceExhausted" in problem.text or problem.code == "ResourceExhausted":
        return Failed(Fault("model", transient=True, word="not_ready", retry_after_s=retry_s), _busy(status), status)
    out_of_service = status == 503 and retry_s is not None and retry_s >= _OUT_OF_SERVICE_S  # noqa: PLR2004
    fault = Fault(
        "model" if out_of_service else "provider",
        transient=not out_of_service,
        word="not_ready",
        retry_after_s=retry_s,
    )
    return Failed(fault, _busy(status), status)


def _busy(status: int) -> str:
    return f"the cloud is overloaded or out of order ({status}): {_LATER}"
