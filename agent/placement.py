"""Where a job runs: a pure decision on the job and on what the box has.

This box has one place, its local engines, until a cloud endpoint is configured.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from agent.contract.errors import NO_VISION, Code, JobError
from agent.contract.jobs import Job

Station: TypeAlias = Literal["text", "vision"]


@dataclass(frozen=True, slots=True)
class Model:
    """A model of this box.

    Attributes:
        unavailable: why it cannot serve at all, or None.

    """

    name: str
    unavailable: str | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """What a decision needs to know of the box: its models, one at least."""

    text: Model | None = None
    vision: Model | None = None

    @property
    def models(self) -> dict[Station, Model]:
        """The models that are there, in the order in which they are preferred."""
        stations: dict[Station, Model | None] = {"text": self.text, "vision": self.vision}
        return {station: model for station, model in stations.items() if model is not None}


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a job runs, on which engine, and one word for why, which the final carries."""

    where: Literal["local"]
    reason: Literal["preferred", "required", "no_cloud"]
    engine: Station


def place(job: Job, box: Box) -> Decision | JobError:
    """Decide where ``job`` runs on ``box``, or why it runs nowhere."""
    if job.pictures and box.vision is None:
        return JobError(Code.UNSUPPORTED, NO_VISION)
    if job.placement == "cloud_only":
        sentence = "this box has no cloud endpoint: ask for prefer_cloud or prefer_local instead"
        return JobError(Code.CLOUD_UNAVAILABLE, sentence, retryable=False)
    engine = _station(job, box.models)
    if isinstance(engine, JobError):
        return engine
    unavailable = box.models[engine].unavailable
    if unavailable is not None:
        return JobError(Code.MODEL_UNAVAILABLE, unavailable, retry_after_s=30.0)
    if job.private or job.placement == "local_only":
        return Decision("local", "required", engine)
    return Decision("local", "no_cloud" if job.placement == "prefer_cloud" else "preferred", engine)


def _station(job: Job, models: dict[Station, Model]) -> Station | JobError:
    """Choose the first model that can do the job and has the name that it asks for, if it asks for one."""
    named = [station for station, model in models.items() if job.model in (None, model.name)]
    able = [station for station in named if station == "vision" or not job.pictures]
    if able:
        return able[0]
    if named:
        sentence = f"`{job.model}` reads text alone: leave `model` out, or name `{models['vision'].name}` for pictures"
        return JobError(Code.UNSUPPORTED, sentence)
    served = " and ".join(f"`{model.name}`" for model in models.values())
    sentence = f"this box serves {served}: leave `model` out, or name {'one of those' if len(models) > 1 else 'that'}"
    return JobError(Code.MODEL_UNAVAILABLE, sentence, retryable=False)
