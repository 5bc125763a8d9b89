"""When jobs will begin and end, from how much work each is: a simulation of the engine, without its noise.

A local engine is one process that makes one native call at a time: a shared processor, on which jobs that run at the
same time gain nothing together; each only waits for the others. So beside others a job starts only if it breaks no
promise. All seconds are from now.
"""

import math
from collections.abc import Sequence
from heapq import heapify, heapreplace
from typing import NamedTuple

# A turn of the worker is a token of each answer and then a slice of one prompt (see `agent.engines.worker.scheduler`),
# which takes as long as about ten tokens: 100 against 10 ms for SmolLM2-135M, 0.9 against 0.14 s for Phi-3.5-mini.
_SLICE = 10.0
# Seconds below which work counts as done: it is what is left of sums and differences of floats.
_NOTHING = 1e-9


class Work(NamedTuple):
    """How long an engine works for a job alone, in seconds: on its prompt, then on its answer."""

    prefill_s: float
    decode_s: float

    @property
    def total_s(self) -> float:
        """Both together."""
        return self.prefill_s + self.decode_s


class Running(NamedTuple):
    """A job that runs: the work that is left, and by when it has been promised to end; None is no promise."""

    left: Work
    until: float | None = None


class Waiting(NamedTuple):
    """A job that stands in line: its work, and by when it has been promised to end; None is no promise."""

    work: Work
    until: float | None = None


class Span(NamedTuple):
    """When a job begins, and when it ends."""

    begins_s: float
    ends_s: float


def may_start(work: Work, running: Sequence[Running]) -> bool:
    """Tell whether a shared engine may start a job beside those that run: none of them may break its promise by it.

    So equal jobs with promises run one after another, a short one slips in beside a long one that has time, and jobs
    that nothing was promised share. A job that runs late already has nobody start beside it.
    """
    return _fits(work, [_Share(each.left, each.until) for each in running], 0.0)


def foresee(running: Sequence[Running], waiting: Sequence[Waiting], slots: int, *, shared: bool) -> list[Span]:
    """Predict when each job that waits will begin and end.

    Args:
        running: the jobs that run.
        waiting: those that wait, in the order in which they start; none starts before the one ahead of it.
        slots: how many run at the same time.
        shared: whether all slots share one processor, as a local engine's, on which a job starts as `may_start` says;
            else each has its own, as an endpoint elsewhere.

    """
    if shared:
        return _on_one_processor(running, waiting, slots)
    free_at = sorted(each.left.total_s for each in running)[max(len(running) - slots, 0) :]
    free_at += [0.0] * (slots - len(free_at))
    heapify(free_at)
    spans = []
    for each in waiting:
        spans.append(Span(free_at[0], free_at[0] + each.work.total_s))
        heapreplace(free_at, spans[-1].ends_s)
    return spans


class _Share:
    """A job on a shared processor: what is left of it, until when it must have ended, and its place in the line."""

    __slots__ = ("begun", "decode", "number", "prefill", "until")

    def __init__(self, left: Work, until: float | None, number: int = -1, begun: float = 0.0) -> None:
        self.prefill, self.decode = left
        self.until = math.inf if until is None else until
        self.number = number
        self.begun = begun


def _fits(work: Work, jobs: Sequence[_Share], now: float) -> bool:
    """Tell whether all ``jobs`` end in time, at the latest, if ``work`` starts ``now``.

    At the latest, since every prompt counts as computed before any of them ends. That is not far from the truth, and a
    newcomer that could have started a little earlier has lost nothing: the processor was busy.
    """
    prefill = work.prefill_s + sum(job.prefill for job in jobs)
    for job in jobs:
        if job.until == math.inf:
            continue
        # The most that another answer can have had of the processor before this job ends.
        reach = job.decode + prefill / _SLICE
        others = sum(min(other.decode, reach) for other in jobs if other is not job) + min(work.decode_s, reach)
        if now + prefill + job.decode + others > job.until:
            return False
    return True


def _on_one_processor(running: Sequence[Running], waiting: Sequence[Waiting], slots: int) -> list[Span]:
    jobs = [_Share(each.left, each.until) for each in running]
    spans = [Span(0.0, 0.0)] * len(waiting)
    now, head = 0.0, 0
    while head < len(waiting) or any(job.number >= 0 for job in jobs):
        while head < len(waiting) and len(jobs) < slots and _fits(waiting[head].work, jobs, now):
            jobs.append(_Share(*waiting[head], head, now))
            head += 1
        now += _advance(jobs)
        for job in [job for job in jobs if job.prefill + job.decode <= _NOTHING]:
            jobs.remove(job)
            if job.number >= 0:
                spans[job.number] = Span(job.begun, now)
    return spans


def _advance(jobs: Sequence[_Share]) -> float:
    """Let the processor work until a prompt or an answer is done; return how long that takes.

    Of several prompts the shortest is computed, a slice for each token that every answer gets meanwhile.
    """
    first, answers = None, []
    for job in jobs:
        if job.prefill <= _NOTHING:
            answers.append(job)
        elif first is None or job.prefill < first.prefill:
            first = job
    share = min((job.decode for job in answers), default=math.inf)
    if first is not None:
        share = min(share, first.prefill / _SLICE)
        first.prefill -= share * _SLICE
    for job in answers:
        job.decode -= share
    return share * (len(answers) + (_SLICE if first is not None else 0.0))
