"""Whether a job may go to the endpoint, and when: every rule that there is, in one place, asked for each attempt."""

import asyncio
from collections.abc import Callable

import structlog

from agent.contract.errors import Code, JobError
from agent.contract.jobs import Job
from agent.engines.cloud import guard, request
from agent.engines.cloud.books import Books
from agent.engines.cloud.breaker import Breaker, Change, Fault
from agent.engines.cloud.limiter import Limiter
from agent.engines.cloud.presets import Endpoint
from agent.settings import Cloud

_log = structlog.get_logger(__name__)

_NO_KEY = "this box has no key for the cloud: set cloud.api_key_file"
_KEPT = "the job's camera keeps its pictures on this box: try again when it is less busy"
_HELD_UP = "this box has sent all the requests of this minute: try again later, or raise cloud.requests_per_minute"


class Gate:
    """Lets jobs out, one request at a time.

    Args:
        settings: what may go there.
        endpoint: where.
        has_key: whether there is one to show.
        books: the budget.
        keeps: whether a job is to be kept on the box by what its camera was told since it came.
        clock: the monotonic clock, in seconds.
        random: returns a number in [0, 1).

    """

    def __init__(
        self,
        settings: Cloud,
        endpoint: Endpoint,
        *,
        has_key: bool,
        books: Books,
        keeps: Callable[[Job], bool],
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._has_key = has_key
        self._books = books
        self._keeps = keeps
        self._clock = clock
        self._breaker = Breaker(random)
        self._limiter = Limiter(settings.requests_per_minute)
        self._turn = asyncio.Lock()  # at the limiter

    def __repr__(self) -> str:
        return f"<Gate {self._breaker!r} {self._limiter!r}>"

    def delay_s(self, ahead: int = 0) -> float:
        """Tell how long the limit of requests in a minute would hold up one with so many ``ahead``, in seconds."""
        return self._limiter.delay_s(self._clock(), ahead)

    def model(self, job: Job) -> str | None:
        """Return the endpoint's name for the model that would answer, if there is one for this job.

        A job that names a model goes to no other. One with pictures goes to the vision model alone.
        """
        models = [self._settings.text_model, self._settings.vision_model][bool(job.pictures) :]
        return models[0] if job.model is None else job.model if job.model in models else None

    def refusal(self, job: Job) -> JobError | None:
        """Say why the job may not go now, or None. Nobody is asked for that."""
        refused = self._private(job)
        if refused is not None:
            return refused
        model = self.model(job)
        if model is None:
            return self._without_model(job)
        if self._endpoint.needs_key and not self._has_key:
            return JobError(Code.CLOUD_UNAVAILABLE, _NO_KEY, retryable=False, reason="key")
        refused = request.refusal(job, self._endpoint.preset) or self._books.refusal(job) or self._shut(model)
        if refused is None and job.deadline_s is not None and self.delay_s() > job.deadline_s:
            return self._held_up()
        return refused

    def shut_s(self, model: str) -> float:
        """Return for how long a model is not to be asked because it, or what it needs, has failed."""
        now = self._clock()
        shut = self._breaker.refusal(model, now)
        return shut.until_s - now if shut else 0.0

    async def take_place(self, until: float) -> None:
        """Wait for a place under the limit of requests in a minute.

        Raises:
            JobError: there is none until then.

        """
        if self.delay_s() > until - self._clock():
            raise self._held_up()
        async with self._turn:
            while delay_s := self._limiter.take(self._clock()):
                if delay_s > until - self._clock():
                    raise self._held_up()
                await asyncio.sleep(delay_s)

    def open(self, job: Job, model: str) -> None:
        """Let a request out that is sent next: after all that was waited for, every rule is asked once more.

        Raises:
            JobError: it may not go.

        """
        refused = self._private(job) or self._books.refusal(job) or self._shut(model)
        if refused is not None:
            raise refused
        self._breaker.attempt(model, self._clock())

    async def leave(self, job: Job) -> None:
        """Note that a request of the job leaves; awaited when its connection stands, before a byte of it is written.

        Its camera is asked for on both sides: to connect takes seconds, and so may a disk. (What is kept here by the
        second question alone is told as having left.)

        Raises:
            JobError: it may not go, or that could not be noted.

        """
        self._stay(job)
        await self._books.leaving(job)
        self._stay(job)

    def succeeded(self, model: str) -> None:
        """Note an answer that came to its end."""
        self._tell(self._breaker.succeeded(model, self._clock()))

    def failed(self, model: str, fault: Fault) -> None:
        """Note an attempt that failed."""
        self._tell(self._breaker.failed(model, fault, self._clock()))

    def _private(self, job: Job) -> JobError | None:
        return guard.refusal(job, self._settings.frames_to_cloud) or self._kept(job)

    def _kept(self, job: Job) -> JobError | None:
        return JobError(Code.PRIVACY, _KEPT) if self._keeps(job) else None

    def _stay(self, job: Job) -> None:
        kept = self._kept(job)
        if kept is not None:
            raise kept

    def _without_model(self, job: Job) -> JobError:
        if job.model is not None:
            sentence = "the cloud has no model of the name that the job asks for: leave `model` out"
        elif job.pictures:
            sentence = "the box has no model in the cloud for pictures: set cloud.vision_model"
        else:
            sentence = "the box has no model in the cloud for text: set cloud.text_model"
        return JobError(Code.CLOUD_UNAVAILABLE, sentence, retryable=False, reason="no_model")

    def _shut(self, model: str) -> JobError | None:
        now = self._clock()
        shut = self._breaker.refusal(model, now)
        if shut is None:
            return None
        return JobError(Code.CLOUD_UNAVAILABLE, shut.sentence, shut.until_s - now, reason="breaker")

    def _held_up(self) -> JobError:
        return JobError(Code.CLOUD_UNAVAILABLE, _HELD_UP, self.delay_s(), reason="rate_limit")

    def _tell(self, changes: list[Change]) -> None:
        for change in changes:
            log = _log.warning if change.state == "opened" else _log.info
            log(
                f"cloud.breaker_{change.state}",
                scope=change.scope,
                model=change.model,
                word=change.word,
                for_s=round(change.for_s, 1),
            )
