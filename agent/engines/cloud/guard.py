"""Whether a job may leave the box: the one rule, which whatever is about to send asks first.

It fails closed. What it does not know, a policy or a kind of content that is newer than it, stays here.
"""

from collections.abc import Iterator
from typing import Literal

from agent.contract.errors import Code, JobError
from agent.contract.jobs import Job, TextPart

_MAY_LEAVE = (None, "prefer_local", "prefer_cloud", "cloud_only")
# NVIDIA's endpoints take `<img src="data:image/jpeg;base64,…" />` within a text for a picture, and the like for sounds
# and films. Nobody has looked at that one: it would leave as it came, with the place where it was taken. Two plain
# searches, and no pattern: a text may be hostile, and have 8 MiB.
_INLINE = ("data:image/", ";base64,")


def refusal(job: Job, frames_to_cloud: Literal["never", "allowed"]) -> JobError | None:
    """Say why a job must stay on the box; None if it may leave.

    A camera's job counts as a picture even where it has none: what is asked about a camera's pictures, and the answer
    to it, tell of them.
    """
    if job.private is not False:
        return _stays(
            "the job is private and stays on this box: try again when it is less busy, or leave `private` out"
        )
    if job.placement not in _MAY_LEAVE:
        return _stays(
            "the job is for this box alone: try again when it is less busy, or let its `placement`, "
            "or its camera's, be prefer_local"
        )
    if _shows(job) and frames_to_cloud != "allowed":
        return _stays("this box lets no picture out: set its cloud.frames_to_cloud to allowed, or ask for prefer_local")
    if any(sign in text for text in _texts(job) for sign in _INLINE):
        return _stays("a text of the job has a picture written into it: send the picture as an image_url part")
    return None


def _shows(job: Job) -> bool:
    """Whether there are pictures in a job, or whatever else is no text."""
    parts = (part for message in job.messages if not isinstance(message.content, str) for part in message.content)
    return (
        bool(job.pictures)
        or job.camera is not None
        or job.frame is not None
        or not all(isinstance(part, TextPart) for part in parts)
    )


def _texts(job: Job) -> Iterator[str]:
    return (message.text.lower() for message in job.messages)


def _stays(sentence: str) -> JobError:
    return JobError(Code.PRIVACY, sentence)
