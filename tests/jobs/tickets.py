"""Jobs that wait, in one line each."""

from typing import Any

from agent.admission import Queue, Ticket
from agent.contract.jobs import Frame, Job, Message


def job(name: str, *, client: str = "c", **fields: Any) -> Job:
    return Job(client=client, id=name, messages=(Message(role="user", content="x"),), **fields)


def ticket(name: str, *, at: float = 0.0, deadline: float | None = None, deaths: int = 0, **fields: Any) -> Ticket:
    return Ticket(job(name, **fields), received_at=at, deadline=deadline, deaths=deaths)


def frame(name: str, camera: str, interval_s: float = 0.0, *, deaths: int = 0, **fields: Any) -> Ticket:
    return ticket(name, deaths=deaths, camera=camera, frame=Frame(min_interval_s=interval_s), **fields)


def started(queue: Queue, *, now: float = 0.0, most: int = 99) -> list[str]:
    """Start jobs one after another, each ended before the next, while any may start; return their ids."""
    names: list[str] = []
    while len(names) < most and (taken := queue.pop(now, 0, 1, suspect_runs=False)) is not None:
        names.append(taken.job.id)
    return names
