"""Error codes of the contract, and the one exception that carries them through the house."""

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Why a job did not succeed."""

    BAD_REQUEST = "bad_request"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    QUEUE_FULL = "queue_full"
    DEADLINE = "deadline"
    CANCELED = "canceled"
    SUPERSEDED = "superseded"
    PRIVACY = "privacy"
    MODEL_UNAVAILABLE = "model_unavailable"
    CLOUD_UNAVAILABLE = "cloud_unavailable"
    CLOUD_REJECTED = "cloud_rejected"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL = "internal"


# Codes for which the same request may well succeed later, under a new id: the old one has its answer.
_RETRYABLE = frozenset(
    {
        Code.QUEUE_FULL,
        Code.DEADLINE,
        Code.MODEL_UNAVAILABLE,
        Code.CLOUD_UNAVAILABLE,
        Code.OUT_OF_MEMORY,
        Code.INTERNAL,
    }
)

NO_VISION = "this box has no vision model: send frames to a box that has one"
# Which camera's policy held, privacy included, and which frame is the latest, would depend on the box that was next.
NO_FRAMES_IN_A_POOL = (
    "a pool takes no frames of cameras: send them to one box, or a picture as JSON to the pool's text topic"
)


@dataclass(eq=False)
class JobError(Exception):
    """A job's end without success, as its client will read it.

    Args:
        code: one of the contract's codes.
        message: one sentence a person can act on; never a prompt or a secret.
        retry_after_s: seconds after which to try again, where that is known.
        retryable: whether the same request may succeed later; by default what the code says.
        reason: the word for it in the final's ``placement``; by default the code.

    """

    code: Code
    message: str
    retry_after_s: float | None = None
    retryable: bool | None = None
    reason: str | None = None

    @property
    def word(self) -> str:
        """One word for why the job ran nowhere."""
        return self.reason or str(self.code)

    @property
    def can_retry(self) -> bool:
        """Whether the same request may succeed later."""
        return self.code in _RETRYABLE if self.retryable is None else self.retryable

    def as_dict(self) -> dict[str, object]:
        """Return the contract's ``error`` object."""
        return {
            "code": str(self.code),
            "message": self.message,
            "retryable": self.can_retry,
            "retry_after_s": self.retry_after_s,
        }
