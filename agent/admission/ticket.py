"""A job with what is known of it besides what its client sent."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from agent.contract.errors import JobError
from agent.contract.jobs import Job

# A client's name and that of its camera: two clients may both have a porch. A job that is no camera's has no second.
Camera: TypeAlias = tuple[str, str | None]


def camera_of(job: Job) -> Camera:
    """Tell which camera's job it is."""
    return job.client, job.camera


@dataclass(frozen=True, slots=True)
class Ticket:
    """A job that waits or runs.

    Attributes:
        received_at: when it arrived, on the monotonic clock, in seconds.
        deadline: when its answer is worth nothing any more, on the same clock.
        attempt: which run this is, from 1.
        deaths: how often the engine died while this job ran.
        restarts: how many attempts were begun anew since the agent started.
        stored: whether it is on disk; a frame that was published at QoS 0 was promised nothing and is not.
        tried: the places that could not answer it, in that order, and how they failed.
        egress: whether a byte of it has left the box.
        started: whether an engine has taken it up, in whatever attempt.
        until: by when it is to end, on the same clock, whatever starts beside it; None if nothing was promised.

    """

    job: Job
    received_at: float
    deadline: float | None = None
    attempt: int = 1
    deaths: int = 0
    restarts: int = 0
    stored: bool = True
    tried: tuple[tuple[Literal["local", "cloud"], JobError], ...] = ()
    egress: bool = False
    started: bool = False
    until: float | None = None

    def again(self) -> "Ticket":
        """Return the ticket for the run after one that the engine did not survive."""
        return replace(self, attempt=self.attempt + 1, restarts=self.restarts + 1, deaths=self.deaths + 1)

    def moved(self, where: Literal["local", "cloud"], error: JobError, *, started: bool, talked: bool) -> "Ticket":
        """Return the ticket for a run elsewhere after one that failed; once it has ``talked``, in a new attempt."""
        more = int(talked)
        return replace(
            self,
            attempt=self.attempt + more,
            restarts=self.restarts + more,
            deaths=0,
            started=self.started or started,
            tried=(*self.tried, (where, error)),
        )
