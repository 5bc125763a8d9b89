"""The spool beside a model of it in plain dicts, through any sequence of operations and reopenings."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.spool import Receipt, Spool
from tests.spool.samples import final, job, key, unsent

T = TypeVar("T")

ids = st.sampled_from("abcd")
payloads = st.binary(max_size=5000)
times = st.integers(0, 9).map(float)


@dataclass
class Request:
    attempt: int = 1
    canceled: bool = False
    egress: bool = False


class Beside(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.spool = self.do(Spool.open(self.folder / "spool.db"))
        self.requests: dict[str, Request] = {}
        self.finals: dict[str, tuple[bytes, float]] = {}
        self.outbox: list[str] = []
        self.spending: dict[tuple[str, str], int] = {}

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def known(self, job_id: str) -> Receipt:
        """Tell what the model knows, and send a final again."""
        if job_id in self.requests:
            return Receipt.RUNNING
        if job_id not in self.finals:
            return Receipt.NEW
        if job_id not in self.outbox:
            self.outbox.append(job_id)
        return Receipt.FINISHED

    def finished(self, job_id: str, payload: bytes, at: float) -> bool:
        self.requests.pop(job_id, None)
        if job_id in self.finals:
            return False
        self.finals[job_id] = (payload, at)
        self.outbox.append(job_id)
        return True

    @rule(job_id=ids)
    def accept(self, job_id: str) -> None:
        expected = self.known(job_id)
        if expected is Receipt.NEW:
            self.requests[job_id] = Request()
        assert self.do(self.spool.accept(job(job_id), 1.0)) is expected

    @rule(job_id=ids)
    def cancel(self, job_id: str) -> None:
        expected = self.known(job_id)
        if expected is Receipt.RUNNING:
            self.requests[job_id].canceled = True
        assert self.do(self.spool.cancel(key(job_id))) is expected

    @rule(job_id=ids, payload=payloads, at=times)
    def finish(self, job_id: str, payload: bytes, at: float) -> None:
        expected = self.finished(job_id, payload, at)
        assert self.do(self.spool.finish(final(job_id, payload, at))) is expected

    @rule(job_id=ids, payload=payloads, at=times)
    def refuse(self, job_id: str, payload: bytes, at: float) -> None:
        expected = self.known(job_id)
        if expected is Receipt.NEW:
            self.finished(job_id, payload, at)
        assert self.do(self.spool.refuse(final(job_id, payload, at))) is expected

    @rule(job_id=ids, attempt=st.integers(1, 5))
    def restart(self, job_id: str, attempt: int) -> None:
        if job_id in self.requests:
            self.requests[job_id].attempt = attempt
        self.do(self.spool.restarted(key(job_id), attempt))

    @rule(job_id=ids, day=st.sampled_from(("2026-11-22", "2026-11-23")), payer=st.sampled_from(("", "porch/cam")))
    def leave(self, job_id: str, day: str, payer: str) -> None:
        if job_id in self.requests:
            self.requests[job_id].egress = True
        total = self.spending.get((day, payer), 0) + 1
        self.spending = {each: count for each, count in self.spending.items() if each[0] == day} | {(day, payer): total}
        self.do(self.spool.leaving(key(job_id), [(day, payer, total, 0, 0.0)]))

    @rule(which=st.sets(st.integers(0, 3)))
    def send(self, which: set[int]) -> None:
        rows = self.do(self.spool.outgoing(0, 10))
        self.do(self.spool.sent([row.seq for n, row in enumerate(rows) if n in which]))
        self.outbox = [job_id for n, job_id in enumerate(self.outbox) if n not in which]

    @rule(before=times)
    def expire(self, before: float) -> None:
        gone = [job_id for job_id, (_, at) in self.finals.items() if at < before and job_id not in self.outbox]
        for job_id in gone:
            del self.finals[job_id]
        assert self.do(self.spool.expire(before)) == len(gone)

    @rule()
    def reopen(self) -> None:
        self.do(self.spool.close())
        self.spool = self.do(Spool.open(self.folder / "spool.db"))
        for request in self.requests.values():
            request.attempt += 1
        recovered = self.do(self.spool.recover())
        assert [(each.key.id, each.job, each.attempt, each.canceled, each.egress) for each in recovered] == [
            (job_id, job(job_id), it.attempt, it.canceled, it.egress) for job_id, it in self.requests.items()
        ]

    @invariant()
    def the_outbox_is_the_models(self) -> None:
        assert self.do(unsent(self.spool)) == [(job_id, self.finals[job_id][0]) for job_id in self.outbox]

    @invariant()
    def the_spending_is_the_models(self) -> None:
        spending = self.do(self.spool.spending())
        assert {(period, payer): requests for period, payer, requests, _, _ in spending} == self.spending

    @invariant()
    def the_counts_are_the_models(self) -> None:
        assert (self.spool.unfinished, self.spool.unsent) == (len(self.requests), len(self.outbox))

    def teardown(self) -> None:
        self.do(self.spool.close())
        self.runner.close()
        shutil.rmtree(self.folder)


TestBeside = Beside.TestCase
TestBeside.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
