"""Asks each line what it could do for a job, and has `agent.placement` decide."""

from collections.abc import Callable, Mapping

from agent.admission import Ticket
from agent.contract.errors import Code, JobError
from agent.contract.jobs import Job, Policy
from agent.course import LATE
from agent.line import Line
from agent.placement import Box, Decision, Station, Tried, place

SILENT = JobError(Code.CLOUD_UNAVAILABLE, "its first word did not come in time", reason="timeout")

# The cloud is not given up sooner, though this box will be too late then: most first words take less.
_LEAST_PATIENCE_S = 1.0
# What it takes to give a place up and start in the other, at the most; and predictions move a little meanwhile.
_TURN_S = 0.25


class Chooser:
    """Decides where jobs go. It changes nothing but what the lines know of themselves.

    Args:
        lines: what there is to choose from.
        policy: the box's own.
        clock: the monotonic clock, in seconds.

    """

    def __init__(self, lines: Mapping[Station, Line], policy: Policy, clock: Callable[[], float]) -> None:
        self._lines = lines
        self._policy = policy
        self._clock = clock

    def choose(
        self, job: Job, left_s: float | None, *, tried: Tried = (), bounded: bool = False, head_of: Line | None = None
    ) -> Decision | JobError:
        """Decide where a job runs now.

        Args:
            job: it comes now, or waits.
            left_s: seconds to its deadline.
            tried: where it has failed.
            bounded: whether a full queue is a reason against a place.
            head_of: the line in which it is the next to start, if it is.

        """
        now = self._clock()
        stations = {
            station: line.place(job, now, left_s, ahead=line is not head_of, bounded=bounded and line is not head_of)
            for station, line in self._lines.items()
        }
        return place(job, Box(stations, self._policy), left_s=left_s, tried=tried)

    def place(self, ticket: Ticket, *, bounded: bool = False, head_of: Line | None = None) -> Decision | JobError:
        """Decide where a job that was taken on runs now; see `choose`."""
        return self.choose(ticket.job, self._left_s(ticket), tried=ticket.tried, bounded=bounded, head_of=head_of)

    def instead(self, ticket: Ticket) -> Decision | JobError:
        """Decide whether the cloud takes a job that would be late here."""
        left_s = self._left_s(ticket)
        there = self._lines["cloud"].place(ticket.job, self._clock(), left_s, ahead=True, bounded=True)
        tried: Tried = (*ticket.tried, ("local", LATE))
        return place(ticket.job, Box({"cloud": there}, self._policy), left_s=left_s, tried=tried)

    def without_cloud(self, ticket: Ticket) -> Decision | JobError:
        """Decide whether this box takes a job that is with the cloud."""
        tried: Tried = (*ticket.tried, ("cloud", SILENT))
        return self.choose(ticket.job, self._left_s(ticket), tried=tried, bounded=True)

    def patience_s(self, ticket: Ticket, decision: Decision) -> float | None:
        """Return how long the cloud may keep silent, so that there is time left for this box to do it."""
        left_s = self._left_s(ticket)
        if decision.where == "local" or left_s is None:
            return None
        here = self.without_cloud(ticket)
        if isinstance(here, JobError) or here.ends_s is None:
            return None
        return max(left_s - here.ends_s - _TURN_S, _LEAST_PATIENCE_S)

    def _left_s(self, ticket: Ticket) -> float | None:
        return None if ticket.deadline is None else ticket.deadline - self._clock()
