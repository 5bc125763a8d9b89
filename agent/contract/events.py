"""What the agent publishes about a job: ``state``, ``chunk`` and the one ``final``."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from agent.contract import VERSION
from agent.contract.errors import JobError
from agent.contract.jobs import Key


class Outcome(StrEnum):
    """A job's terminal state."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    TIMED_OUT = "TIMED_OUT"
    REJECTED = "REJECTED"


def encode(data: dict[str, object]) -> bytes:
    """Serialise as compact UTF-8 JSON. A lone surrogate, which no JSON reader takes, becomes ``?``."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def state(
    job_id: str,
    name: Literal["accepted", "started", "restarted"],
    attempt: int,
    position: int = 0,
    predicted_wait_s: float | None = None,
    predicted_end_s: float | None = None,
    *,
    camera: str | None = None,
) -> bytes:
    """Build a ``state`` message.

    Args:
        job_id: the job's id.
        name: what happened.
        attempt: counts from 1; a new one begins with ``restarted`` and ``seq`` 0.
        position: jobs to be started before this one.
        predicted_wait_s: seconds until it starts, by measured rates; None while nothing is measured.
        predicted_end_s: seconds until it has ended, likewise.
        camera: of a job that came on an image topic.

    """
    queue = {
        "position": position,
        "predicted_wait_s": _rounded(predicted_wait_s),
        "predicted_end_s": _rounded(predicted_end_s),
    }
    data: dict[str, object] = {"v": VERSION, "id": job_id, "state": name, "attempt": attempt, "queue": queue}
    if camera is not None:
        data["camera"] = camera
    return encode(data)


def chunk(job_id: str, attempt: int, seq: int, text: str) -> bytes:
    """Build a ``chunk``: a piece of the answer. ``seq`` counts from 0 in each attempt without a gap."""
    return encode({"v": VERSION, "id": job_id, "attempt": attempt, "seq": seq, "text": text})


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, counted by the model that ran. ``cached_prompt_tokens`` were not computed again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    image_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the job ran, or why it ran nowhere; ``egress`` is whether a byte of it left the box."""

    where: Literal["local", "cloud", "none"] = "none"
    reason: str = "refused"
    model: str | None = None
    provider: str | None = None
    egress: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds since the request arrived, and the decode rate after the first token."""

    queued_s: float = 0.0
    first_token_s: float | None = None
    total_s: float = 0.0
    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Final:
    """The one terminal answer.

    Attributes:
        seq: how many chunks were published in this attempt; with fewer received, some were lost on the way.
        notice: what the client should know besides, such as a response topic that was not used.
        camera: of a job that came on an image topic; whoever publishes frames without ids has nothing else to
            tell their answers apart by.

    """

    key: Key
    outcome: Outcome
    text: str = ""
    finish_reason: Literal["stop", "length", "content_filter"] | None = None
    attempt: int = 1
    seq: int = 0
    usage: Usage = Usage()
    placement: Placed = Placed()
    timing: Timing = Timing()
    error: JobError | None = None
    notice: str | None = None
    camera: str | None = None

    def encode(self, node: str) -> bytes:
        """Serialise as the contract's ``final``, answered by ``node``."""
        data: dict[str, object] = {
            "v": VERSION,
            "id": self.key.id,
            "node": node,
            "client": self.key.client,
            "state": str(self.outcome),
            "text": self.text,
            "finish_reason": self.finish_reason,
            "attempt": self.attempt,
            "seq": self.seq,
            "usage": _flat(self.usage),
            "placement": _flat(self.placement),
            "timing": {name: _rounded(value) for name, value in _flat(self.timing).items()},
            "error": None if self.error is None else self.error.as_dict(),
        }
        if self.camera is not None:
            data["camera"] = self.camera
        if self.notice is not None:
            data["notice"] = self.notice
        return encode(data)


def shortened(final: bytes, most: int, max_packet: int) -> bytes:
    """Cut an encoded final for a broker that does not take it whole, and say so in it.

    Its text loses its end. Where that is not enough, ``usage`` and ``timing`` become null and ``notice`` is left out;
    who answered, how it ended and where it ran stay.

    Args:
        final: as `Final.encode` made it.
        most: how many bytes it may have; the shortest there is may have more.
        max_packet: the broker's limit, for the sentence.

    """
    data: dict[str, object] = json.loads(final) | {"truncated": True}
    what = "the text was cut" if data["text"] else "this was shortened"
    cut = f"{what} to fit the broker's largest packet of {max_packet:,} bytes: raise that limit to have it whole"
    notice = f"{data['notice']}; {cut}" if "notice" in data else cut
    room = most - len(encode(data | {"notice": notice, "text": ""}))
    if room >= 0:
        return encode(data | {"notice": notice, "text": _beginning(str(data["text"]), room)})
    data |= {"usage": None, "timing": None}
    data.pop("notice", None)
    return encode(data | {"text": _beginning(str(data["text"]), most - len(encode(data | {"text": ""})))})


def _beginning(text: str, most: int) -> str:
    """Return as much of ``text`` as takes at most ``most`` bytes of JSON, in whole characters."""
    escaped = json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")
    cut = escaped[: max(most, 0)].decode("utf-8", "ignore")
    while True:
        try:
            return str(json.loads(f'"{cut}"'))
        except ValueError:
            cut = cut[:-1]  # it ends within an escape, of six characters at the most


def _flat(value: Usage | Placed | Timing) -> dict[str, object]:
    """Return a flat dataclass as a dict; `dataclasses.asdict` copies deeply, which cost a tenth of a job."""
    return {name: getattr(value, name) for name in value.__slots__}


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
