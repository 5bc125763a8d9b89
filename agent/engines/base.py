"""What every engine is to the rest of the house, and what it yields while it works on a job."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from agent.contract.errors import Code, JobError
from agent.contract.events import Usage
from agent.contract.jobs import Job


@dataclass(frozen=True, slots=True)
class Started:
    """The job passed the engine's own checks (window, memory, pictures) and its prefill begins now."""

    prompt_tokens: int
    cached_prompt_tokens: int = 0
    image_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """The next words: whole characters, and nothing that could still turn out to be a stop string.

    Attributes:
        completion_tokens: how many tokens the answer has so far.

    """

    text: str
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """How long the engine worked for a job alone, in seconds, whatever else it did meanwhile.

    Of an endpoint elsewhere, whose work nobody here sees: the time to the first token, and the time after it.
    """

    prefill_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class Done:
    """The job ended by itself; ``cost`` is None where the engine does not measure it."""

    finish_reason: Literal["stop", "length", "content_filter"]
    usage: Usage
    cost: Cost | None = None


Event: TypeAlias = Started | Text | Done


class EngineLost(Exception):  # noqa: N818  it tells what happened, as `JobError` does not
    """The engine died under the job, through the job's fault or not. The job may be run again from the start."""


class SimilarFrame(JobError):  # noqa: N818  it tells what happened
    """The frame shows what the last one of its camera did that the model looked at: it was not run."""

    def __init__(self) -> None:
        super().__init__(
            Code.SUPERSEDED, "the frame is nearly the same as the last one that was looked at", retryable=False
        )


@dataclass(frozen=True, slots=True)
class Health:
    """How an engine is.

    Attributes:
        state: ``loading`` until the first load, again after a crash, and while its process is replaced; ``failed``
            after repeated failures to load (it is still retried); ``ready`` otherwise.
        model: the model's name.
        provider: the execution provider in use, such as ``cpu``.
        context: the model's window in tokens, as far as the memory could hold it, 0 while unknown.
        load_s: how long the model took to load the last time, in seconds; None while it has not.
        provider_detail: one sentence on why it is not the provider that would be preferred, if it is not; for every
            client too.
        detail: one sentence on what is wrong, if anything is. Every client may read it, so it has no words of a job
            and no paths in it.

    """

    state: Literal["loading", "ready", "failed"]
    model: str
    provider: str = "cpu"
    context: int = 0
    detail: str | None = None
    load_s: float | None = None
    provider_detail: str | None = None


class Engine(Protocol):
    """Runs jobs, several at once. The course of a job never asks for more than ``slots`` at a time."""

    slots: int

    @property
    def health(self) -> Health:
        """How the engine is now."""

    @property
    def resident_bytes(self) -> int:
        """Memory of the engine's process, 0 while it has none."""

    async def changed(self) -> Health:
        """Wait for the next change of state, and return the health after it."""

    async def serve(self) -> None:
        """Keep the engine alive until cancelled; then stop it and return its resources."""

    def run(self, job: Job) -> AsyncGenerator[Event, None]:
        """Run one job; yield `Started`, then any number of `Text`, then `Done`.

        Closing the generator, or cancelling whoever iterates it, cancels the job at once for the caller and
        at the end of the native call in progress for the engine. A cancellation with the message ``canceled`` is its
        client's wish.

        Raises:
            SimilarFrame: there is nothing new to see.
            JobError: the job cannot be run here; if before `Started`, it was refused.
            EngineLost: the engine died under it.

        """


class Remote(Engine, Protocol):
    """An engine elsewhere, which may have reasons of its own not to take a job now."""

    def delay_s(self, ahead: int) -> float:
        """Tell how long a request with so many ``ahead`` of it would be held up before it is sent, in seconds."""

    def refusal(self, job: Job) -> JobError | None:
        """Tell why it cannot take this job now, or ever. It is asked at every decision, and does no I/O."""

    def model(self, job: Job) -> str | None:
        """Tell which model would answer the job; None if none can."""
