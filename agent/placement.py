"""Where a job runs: a pure decision on the job and on what the box has.

This box has one place, its local engine, until a cloud endpoint is configured.
"""

from dataclasses import dataclass
from typing import Literal

from agent.contract.errors import NO_VISION, Code, JobError
from agent.contract.jobs import Job


@dataclass(frozen=True, slots=True)
class Box:
    """What a decision needs to know of the box.

    Attributes:
        model: the text model's name.
        unavailable: why the model cannot serve at all, or None.

    """

    model: str
    unavailable: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a job runs, and one word for why, which the final carries."""

    where: Literal["local"]
    reason: Literal["preferred", "required", "no_cloud"]


def place(job: Job, box: Box) -> Decision | JobError:
    """Decide where ``job`` runs on ``box``, or why it runs nowhere."""
    if job.images:
        return JobError(Code.UNSUPPORTED, NO_VISION)
    if job.placement == "cloud_only":
        sentence = "this box has no cloud endpoint: ask for prefer_cloud or prefer_local instead"
        return JobError(Code.CLOUD_UNAVAILABLE, sentence, retryable=False)
    if job.model is not None and job.model != box.model:
        sentence = f"this box serves `{box.model}`: leave `model` out, or name that"
        return JobError(Code.MODEL_UNAVAILABLE, sentence, retryable=False)
    if box.unavailable is not None:
        return JobError(Code.MODEL_UNAVAILABLE, box.unavailable, retry_after_s=30.0)
    if job.private or job.placement == "local_only":
        return Decision("local", "required")
    return Decision("local", "no_cloud" if job.placement == "prefer_cloud" else "preferred")
