"""What the stand-in answers instead of words, or between them: each shape that NIM was seen to have, by its name."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Literal, TypeAlias

PROBLEM = "application/problem+json"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A whole answer, and no words.

    Attributes:
        status: of HTTP.
        body: as it goes out.
        media: its content type, where there is a body.
        retry_after_s: what the header Retry-After says; None leaves the header out.
        dated: whether that header is a date, as proxies write it, and not seconds.
        location: where a redirect leads.

    """

    status: int
    body: bytes = b""
    media: str = PROBLEM
    retry_after_s: float | None = None
    dated: bool = False
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that begins as a good one.

    ``error`` is told inside the stream, with ``[DONE]`` after it; ``truncated`` ends cleanly, without finish_reason and
    ``[DONE]``; ``cut`` closes the connection; ``stalled`` is silent from then on; ``malformed`` has a chunk that is no
    JSON where a word should be. Two are odd and well: ``empty`` has a chunk without choices, ``drip`` comes in pieces
    that end anywhere.

    Attributes:
        how: what is wrong.
        after: so many words; None before the answer's head, for ``cut`` and ``stalled``.

    """

    how: Literal["error", "truncated", "cut", "stalled", "malformed", "empty", "drip"]
    after: int | None = 0


@dataclass(frozen=True, slots=True)
class Later:
    """202 without a body, and the answer to whoever asks for it by its ``nvcf-reqid``.

    Attributes:
        polls: how many times it is asked for; all but the last are answered by 202 again.
        whole: whether the answer is then whole, though a stream was asked for.
        then: what is wrong with that answer.

    """

    polls: int = 1
    whole: bool = False
    then: "Refusal | Stream | Fault | None" = None


def problem(status: int, title: str, detail: str) -> bytes:
    """Build the body of an ``application/problem+json`` as NVIDIA Cloud Functions writes it."""
    kind = f"urn:nvcf-worker-service:problem-details:{title.lower().replace(' ', '-')}"
    return json.dumps({"type": kind, "title": title, "status": status, "detail": detail}).encode()


def error(code: object, message: str) -> bytes:
    """Build OpenAI's shape of an error, which models that run on vLLM or SGLang answer with."""
    return json.dumps({"error": {"message": message, "type": "BadRequestError", "param": None, "code": code}}).encode()


_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_FUNCTION = "Function id '8f4118ba-60a8-4e6b-8574-e38a4067a4a3'"


class Fault(Enum):
    """Every shape by its name."""

    DEGRADED = Refusal(400, problem(400, "Bad Request", f"{_FUNCTION}: DEGRADED function cannot be invoked"))
    USAGE_REFUSED = Refusal(
        400, error(400, "[{'loc': ('body', 'stream_options'), 'msg': 'Extra inputs are not permitted'}]"), JSON
    )
    IMAGE_FORMAT = Refusal(400, error("invalid_image_format", "Invalid or too large image"), JSON)
    BAD_KEY = Refusal(401, problem(401, "Unauthorized", "Authentication failed"))
    NO_CREDITS = Refusal(402, problem(402, "Payment Required", "Account credits expired"))
    FORBIDDEN = Refusal(403, problem(403, "Forbidden", "Authorization failed"))
    NO_MODEL = Refusal(404, problem(404, "Not Found", f"{_FUNCTION}: Not found for account"))
    END_OF_LIFE = Refusal(410, problem(410, "Gone", "The model has reached its end of life and is no longer available"))
    TOO_LARGE = Refusal(413, problem(413, "Payload Too Large", "Request body exceeds the limit"))
    UNPROCESSABLE = Refusal(422, problem(422, "Unprocessable Entity", "max_tokens: Input should be at most 4096"))
    RATE_LIMITED = Refusal(429, problem(429, "Too Many Requests", "Too many requests"))
    RATE_LIMITED_FOR = Refusal(429, problem(429, "Too Many Requests", "Too many requests"), retry_after_s=1)
    RATE_LIMITED_UNTIL = Refusal(
        429, problem(429, "Too Many Requests", "Too many requests"), retry_after_s=1, dated=True
    )
    BROKEN = Refusal(500, problem(500, "Internal Server Error", "Inference connection error"))
    BAD_GATEWAY = Refusal(502, problem(502, "Bad Gateway", "Inference error"))
    HTML_PAGE = Refusal(502, _PAGE, "text/html")
    UNAVAILABLE = Refusal(503, problem(503, "Service Unavailable", "The model is loading"), retry_after_s=10_800)
    EXHAUSTED = Refusal(
        503,
        problem(503, "Service Unavailable", "ResourceExhausted: Worker local total request limit reached (16/16)"),
    )
    TIMED_OUT = Refusal(504)
    REDIRECT = Refusal(307, location="http://127.0.0.1:9/v1/chat/completions")
    # A captive portal, or a proxy that knows better: 200, and nothing of what was asked.
    PORTAL = Refusal(200, b"<html><body>Please log in to use this network.</body></html>", "text/html")
    LATER = Later()
    LATER_WHOLE = Later(polls=2, whole=True)
    LATER_FAILED = Later(then=Refusal(500, problem(500, "Internal Server Error", "Inference connection error")))
    LATER_LOST = Later(then=Refusal(404, problem(404, "Not Found", "Request id not found")))
    ERROR_FIRST = Stream("error")
    ERROR_AMID = Stream("error", 3)
    TRUNCATED_FIRST = Stream("truncated")
    TRUNCATED_AMID = Stream("truncated", 3)
    CUT_BEFORE_HEAD = Stream("cut", None)
    CUT_FIRST = Stream("cut")
    CUT_AMID = Stream("cut", 3)
    STALLED_BEFORE_HEAD = Stream("stalled", None)
    STALLED_FIRST = Stream("stalled")
    STALLED_AMID = Stream("stalled", 3)
    MALFORMED_FIRST = Stream("malformed")
    MALFORMED_AMID = Stream("malformed", 3)
    EMPTY_CHOICES = Stream("empty")
    DRIP = Stream("drip")


Shape: TypeAlias = Refusal | Stream | Later
Plan: TypeAlias = Shape | Fault | None
"""What one request meets; None: a good answer."""


def at_random(random: Random, share: float, faults: Collection[Fault] = tuple(Fault)) -> Iterator[Plan]:
    """Yield plans for ever.

    Args:
        random: whose seed makes it the same again.
        share: of the requests that meet a fault.
        faults: those to choose from.

    """
    choices = tuple(faults)
    while True:
        yield random.choice(choices) if random.random() < share else None


def shape(plan: Plan) -> Shape | None:
    """Return what a plan is."""
    return plan.value if isinstance(plan, Fault) else plan
