"""The cloud engine's books: what it costs, and whether bytes of a job have left the box, in memory and on disk."""

import time
from collections.abc import Callable

import structlog

from agent import budget as budgets
from agent.budget import Budget
from agent.contract.errors import Code, JobError
from agent.contract.events import Usage
from agent.contract.jobs import Job, Key
from agent.spool import Spool, SpoolError

_log = structlog.get_logger(__name__)

_NOT_NOTED = (
    "this box's disk does not take the note that the job leaves, so it stays: see to the disk, or let the job run here"
)


class Accounts:
    """Keeps a budget in step with the spool.

    Args:
        budget: what may be spent and is.
        spool: where that is kept; it is open.
        left: marks a running job as one of which bytes have left the box.
        clock: the wall clock, in seconds.

    """

    def __init__(
        self, budget: Budget, spool: Spool, left: Callable[[Key], None], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._budget = budget
        self._spool = spool
        self._left = left
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Accounts {self._budget!r}>"

    async def remember(self) -> None:
        """Take over what earlier runs have spent. To be awaited before anything is asked or told."""
        self._budget.load(await self._spool.spending())

    def refusal(self, job: Job) -> JobError | None:
        """Why a job may not be paid for now, or None."""
        return self._budget.refusal(job, self._clock())

    async def leaving(self, job: Job) -> None:
        """Note, durably, that a request of a job leaves the box. To be awaited before a byte of it is written.

        What cannot be noted stays: else, if the agent died, the next one would say of the job that nothing of it left.

        Raises:
            JobError: the disk does not take it.

        """
        # No await between the two: the spool keeps what it is told last.
        totals = self._budget.began(job, self._clock())
        try:
            await self._spool.leaving(job.key, totals)
        except SpoolError as error:
            self._budget.stayed(job, self._clock())
            _log.error("egress.not_stored", client=job.client, id=job.id, error=str(error))
            raise JobError(Code.CLOUD_UNAVAILABLE, _NOT_NOTED, reason="disk") from error
        # Not before: of a job that is canceled while the disk works no byte leaves.
        self._left(job.key)

    def prompt_tokens(self, job: Job) -> int:
        """Estimate the tokens of a job's prompt, as the budget does before it leaves."""
        return budgets.prompt_tokens(job)

    async def returned(self, job: Job, usage: Usage) -> None:
        """Charge the tokens of a job that is no longer under way, however that ended.

        To be awaited after every `leaving`, one that failed too: until then the most that the job may cost is held back
        from the budget.
        """
        totals = self._budget.used(job, usage, self._clock())
        try:
            await self._spool.spent(totals)
        except SpoolError as error:
            _log.error("spending.not_stored", client=job.client, id=job.id, error=str(error))
