"""A job that is with the endpoint: how long it is of use there, and what its end says of the endpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.contract.jobs import Job

# For jobs that name no deadline: longer than hosted models take for their longest answers.
_PATIENCE_S = 600.0
# Who is let go after a silence of this length, or half its time if that is less, has met an endpoint that does not
# answer; else one that never does would never be left alone.
_SILENCE_S = 1.0
# A client that changes its mind before says nothing of the endpoint. But hosted models begin to answer within seconds.
_LONG_SILENCE_S = 10.0


@dataclass(slots=True)
class Run:
    """A job under way, over all its attempts.

    Attributes:
        job: as it came.
        model: that is asked, by the endpoint's name for it.
        until: the end of its use, by the monotonic clock.
        pictures: as they may leave the box.
        started: whether an attempt was taken up.
        said: whether a word of an answer has come: from then on there is no other attempt.
        heard_at: when the endpoint last gave a sign of itself, or its silence began.
        owes: whether the endpoint may have worked at a request of the present attempt.

    """

    job: Job
    model: str
    until: float
    pictures: Sequence[bytes] = ()
    started: bool = False
    said: bool = False
    heard_at: float = 0.0
    owes: bool = False

    @classmethod
    def begun(cls, job: Job, model: str, now: float) -> "Run":
        """Return a job that begins now."""
        return cls(job, model, now + (_PATIENCE_S if job.deadline_s is None else job.deadline_s))

    def was_met_with_silence(self, now: float, *, by_client: bool) -> bool:
        """Tell whether the endpoint, and not a client that changed its mind, is why the job is let go now."""
        enough_s = _LONG_SILENCE_S if by_client else min(_SILENCE_S, (self.job.deadline_s or _PATIENCE_S) / 2)
        return now - self.heard_at >= enough_s
