"""What the cloud costs is counted elsewhere: what the engine has to say, and to whom."""

from typing import Protocol

from agent.contract.errors import JobError
from agent.contract.events import Usage
from agent.contract.jobs import Job


class Books(Protocol):
    """Keeps the budget, and whether anything of a job has left the box."""

    def refusal(self, job: Job) -> JobError | None:
        """Why the job may not be paid for now, or None. Cheap: it is asked at every decision."""

    async def leaving(self, job: Job) -> None:
        """Note, durably, that a request of the job leaves the box.

        Awaited for each request, retries included, when the connection stands and before a byte of it is written.

        Raises:
            JobError: that cannot be noted; the request does not leave.

        """

    def prompt_tokens(self, job: Job) -> int:
        """Estimate the tokens of the job's prompt, for where the endpoint does not count them."""

    async def returned(self, job: Job, usage: Usage) -> None:
        """Charge the tokens of an attempt, however it ended. Awaited after each that tried to leave."""
