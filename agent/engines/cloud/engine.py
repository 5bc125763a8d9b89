"""The cloud engine: runs jobs at an endpoint elsewhere, and is the only thing in the house that lets one leave it."""

import asyncio
import random as randomness
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

import httpx
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from agent.backoff import Backoff
from agent.contract.errors import Code, JobError
from agent.contract.events import Usage
from agent.contract.jobs import Job
from agent.engines.base import Cost, Done, EngineLost, Event, Health, Started, Text
from agent.engines.cloud import faults, presets, request, stream
from agent.engines.cloud.books import Books
from agent.engines.cloud.exchange import Exchange
from agent.engines.cloud.faults import Failed
from agent.engines.cloud.gate import Gate
from agent.engines.cloud.readiness import Readiness
from agent.engines.cloud.shrinking import Shrinker
from agent.engines.cloud.under_way import Run
from agent.settings import Cloud

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")

# What fails twice and then works is rare: either a connection was cut, or something is down for minutes.
_ATTEMPTS = 3
# What takes longer is decided anew: the box may be free sooner, and this holds a slot.
_LONGEST_WAIT_S = 5.0
# NVIDIA's endpoints take pictures in a request up to this many characters of base64.
_PICTURES = 180_000
_NOT_READY_RETRY_S = 15.0


class CloudEngine:
    """Runs jobs at an endpoint that speaks OpenAI's chat completions.

    Args:
        settings: which, and what may go there.
        key: shown to the endpoint; None if there is none.
        books: the budget, and the record of what left.
        keeps: whether a job is to be kept on the box by what its camera was told since it came.
        default_max_tokens: the longest answer of a job that does not say.
        clock: the monotonic clock, in seconds.
        random: returns a number in [0, 1).

    Raises:
        ValueError: the endpoint has no address; one sentence that says what to do.

    """

    resident_bytes = 0

    def __init__(
        self,
        settings: Cloud,
        key: str | None,
        books: Books,
        keeps: Callable[[Job], bool],
        *,
        default_max_tokens: int = 512,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self.slots = settings.slots
        self._endpoint = presets.endpoint(settings)
        self._key = key
        self._books = books
        self._default_max_tokens = default_max_tokens
        self._clock = clock
        self._random = random
        self._gate = Gate(
            settings, self._endpoint, has_key=key is not None, books=books, keeps=keeps, clock=clock, random=random
        )
        self._shrinker = Shrinker()
        self._uncounted: set[str] = set()  # models that do not take it to be asked for their usage
        self._exchange: Exchange | None = None  # while it is served
        self._readiness = Readiness(settings.text_model or settings.vision_model or "", settings.preset, random)

    def __repr__(self) -> str:
        return f"<CloudEngine {self._endpoint.name} {self._readiness!r} {self._gate!r}>"

    @property
    def health(self) -> Health:
        """How the endpoint is, as far as it is known without asking."""
        return self._readiness.health

    def delay_s(self, ahead: int) -> float:
        """Tell how long the limit of requests in a minute would hold up one with so many ``ahead``, in seconds."""
        return self._gate.delay_s(ahead)

    async def changed(self) -> Health:
        """Wait for the next change of state, and return the health after it."""
        return await self._readiness.changed()

    def model(self, job: Job) -> str | None:
        """Return the endpoint's name for the model that would answer, if there is one for this job."""
        return self._gate.model(job)

    def refusal(self, job: Job) -> JobError | None:
        """Say why the job cannot be run there now, or None. It is cheap, and nobody is asked."""
        refused = self._gate.refusal(job)
        # Before it was asked, at the start, jobs wait for what it says.
        if refused is None and self.health.detail is not None:
            return JobError(Code.CLOUD_UNAVAILABLE, self.health.detail, _NOT_READY_RETRY_S, reason="not_ready")
        return refused

    async def serve(self) -> None:
        """Hold the connections, and know whether the endpoint is ready, until cancelled.

        Nothing is sent while there is nothing to do. A server of one's own is asked whether it is ready at the start,
        after a failure, and then now and then until it is.
        """
        try:
            async with Exchange.connected(self._endpoint, self._key) as self._exchange:
                await self._readiness.watch(self._exchange)
        finally:
            self._exchange = None
            self._readiness.stopped()

    async def run(self, job: Job) -> AsyncGenerator[Event, None]:
        """Run one job; see `agent.engines.base.Engine.run`.

        It is tried again while no word of an answer has come, as long as that is of use.
        """
        refused, model = self.refusal(job), self.model(job)
        if refused is not None:
            raise refused
        assert model is not None  # noqa: S101  a job without one is refused
        run = Run.begun(job, model, self._clock())
        try:
            async for attempt in self._retrying(run):
                try:
                    async with aclosing(self._attempt(run)) as events:
                        async for event in events:
                            yield event
                except Failed as failed:
                    self._note(run, failed)
                    # Tenacity judges this alone: whatever else is raised, a cancellation above all, ends the run.
                    with attempt:
                        raise
                else:
                    return
        except Failed as failed:
            self._log_failure(run, failed, None)
            error = failed.error()
            raise replace(error, retry_after_s=error.retry_after_s or self._gate.shut_s(model) or None) from failed

    def _retrying(self, run: Run) -> AsyncRetrying:
        """Return when a run is tried again: before its first word, soon, and if that is of use."""
        backoff = Backoff(0.25, 2.0, self._random)

        def may_work(failed: BaseException) -> bool:
            return isinstance(failed, Failed) and failed.passes and not run.said

        def wait_s(state: RetryCallState) -> float:
            return backoff.next() + max(_failed(state).fault.retry_after_s or 0.0, self._gate.shut_s(run.model))

        def in_vain(state: RetryCallState) -> bool:
            return state.upcoming_sleep > min(_LONGEST_WAIT_S, run.until - self._clock())

        return AsyncRetrying(
            retry=retry_if_exception(may_work),
            wait=wait_s,
            stop=lambda state: stop_after_attempt(_ATTEMPTS)(state) or in_vain(state),
            before_sleep=lambda state: self._log_failure(run, _failed(state), state.upcoming_sleep),
            sleep=asyncio.sleep,
            reraise=True,
        )

    async def _attempt(self, run: Run) -> AsyncGenerator[Event, None]:
        """Ask once; yield what comes back.

        Raises:
            Failed: it did not go well.
            JobError: it may not be asked.

        """
        await self._gate.take_place(run.until)
        if run.job.pictures and not run.pictures:
            run.pictures = await self._shrinker.shrunk(run.job.pictures, _PICTURES)
        self._gate.open(run.job, run.model)
        answer = stream.Answer()
        response: httpx.Response | None = None
        sent_at = run.heard_at = self._clock()
        first_at: float | None = None
        run.owes = False
        try:
            response = await self._in_time(run, self._ask(run))
            if not run.started:
                run.started = True
                yield Started(0)
            async with aclosing(stream.read(response, answer)) as said:
                while words := await self._in_time(run, anext(said, "")):
                    run.heard_at = self._clock()
                    run.said, first_at = True, first_at or run.heard_at
                    yield Text(words, answer.tokens)
            finish = answer.finish
        except httpx.HTTPError as error:
            raise faults.broken(error, answering=response is not None) from error
        except asyncio.CancelledError as let_go:
            self._note_silence(run, by_client=str(Code.CANCELED) in let_go.args)
            raise
        finally:
            if response is not None:
                await response.aclose()
            # However it ended: until then the most that it may cost is held back from the budget.
            owed = Usage(self._books.prompt_tokens(run.job), answer.tokens) if run.owes else Usage()
            await self._books.returned(run.job, answer.usage or owed)
        ended_at = self._clock()
        first_at = first_at or ended_at
        self._gate.succeeded(run.model)
        yield Done(finish, answer.usage or Usage(0, answer.tokens), Cost(first_at - sent_at, ended_at - first_at))

    async def _ask(self, run: Run) -> httpx.Response:
        """Send the request; a second time, without it, if the model does not take it to be asked for its usage."""
        counted = run.model not in self._uncounted
        try:
            return await self._send(run, count_usage=counted)
        except Failed as failed:
            if not (counted and failed.uncounted):
                raise
            # If it was a probe, so is the next one.
            self._gate.failed(run.model, failed.fault)
        await self._gate.take_place(run.until)
        self._gate.open(run.job, run.model)
        response = await self._send(run, count_usage=False)
        # Not before: a refusal of something else may have quoted the request.
        self._uncounted.add(run.model)
        _log.info("cloud.usage_refused", model=run.model)
        return response

    async def _send(self, run: Run, *, count_usage: bool) -> httpx.Response:
        if self._exchange is None:
            raise EngineLost("the engine was stopped")
        body = request.body(
            run.job,
            run.model,
            run.pictures,
            self._endpoint.preset,
            max_tokens=self._default_max_tokens,
            count_usage=count_usage,
        )

        def heard() -> None:
            run.heard_at = self._clock()

        async def leaving() -> None:
            await self._gate.leave(run.job)
            heard()  # who takes connections, lives
            run.owes = True

        try:
            return await self._exchange.ask(
                body,
                lambda: run.until - self._clock(),
                leaving,
                heard,
                max_tokens=run.job.sampling.max_tokens or self._default_max_tokens,
            )
        except Failed as failed:
            # What was refused, nobody has computed.
            run.owes = failed.status is None
            raise

    async def _in_time(self, run: Run, doing: Awaitable[_T]) -> _T:
        """Await something for as long as it is of use.

        Never around a ``yield``: it would cancel what the consumer awaits meanwhile.
        """
        try:
            async with asyncio.timeout(run.until - self._clock()):
                return await doing
        except TimeoutError as late:
            raise faults.timed_out() from late

    def _note(self, run: Run, failed: Failed) -> None:
        self._gate.failed(run.model, failed.fault)
        if failed.fault.scope == "provider":
            self._readiness.doubt()

    def _note_silence(self, run: Run, *, by_client: bool) -> None:
        """Let a run that is let go count as a failure, if that is the endpoint's fault."""
        if run.was_met_with_silence(self._clock(), by_client=by_client):
            failed = faults.timed_out()
            self._note(run, failed)
            self._log_failure(run, failed, None)

    def _log_failure(self, run: Run, failed: Failed, retry_s: float | None) -> None:
        _log.warning(
            "cloud.attempt_failed",
            client=run.job.client,
            id=run.job.id,
            model=run.model,
            scope=failed.fault.scope,
            word=failed.fault.word,
            status=failed.status,
            detail=failed.detail,
            retry_s=None if retry_s is None else round(retry_s, 2),
        )


def _failed(state: RetryCallState) -> Failed:
    """Return what the last attempt failed of."""
    failed = state.outcome.exception() if state.outcome else None
    assert isinstance(failed, Failed)  # noqa: S101  nothing else is given to tenacity
    return failed
