"""What the cloud may cost and has cost: requests, tokens and money, a day and a month, of the box and of each camera.

Pure: it is told the time, and says what is to be kept on disk. Days and months are UTC's.

**What it holds.** A job may leave if the most that it can cost fits into what is left, less the most that those under
way can cost. A request is counted as it leaves, its tokens and their price once they are known. So a budget is passed
by no more than the jobs that are between the question and their first byte at the same moment, ``cloud.slots`` of them
at worst, and by what an estimate is too low. A crash loses the tokens of those under way, and no request.

**Which day it is.** A clock that is behind must not give a budget anew, and one that was ahead not use it up for years.
A period ends when the clock shows a later one. A clock that shows an earlier one, as on a box that starts in 1970 or at
the time of its last shutdown, changes nothing: the latest period that is known goes on. Should that be one of the
future, from a clock that was ahead, it ends with the period that the clock shows, if the agent runs at that moment.
What was spent before the clock was ever set counts in the first period after.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Literal, NamedTuple, get_args

from agent.contract.errors import Code, JobError
from agent.contract.events import Usage
from agent.contract.jobs import Job, Key
from agent.settings import Budget as Bounds
from agent.settings import Price

_Kind = Literal["requests", "tokens", "money"]
_KINDS: tuple[_Kind, ...] = get_args(_Kind)
_FORMS = {"day": "%Y-%m-%d", "month": "%Y-%m"}

_BOX = ""
# Anybody may make up cameras' names; those beyond so many in a month share one account.
_MOST_CAMERAS = 1000
_OTHERS = "others"
# A clock that shows less was not set since the box was switched on.
_UNSET_BEFORE = "2026"
# English has four characters to a token; Chinese has three bytes to a character, which is a token or more.
_BYTES_PER_TOKEN = 3
# What Phi-3.5-vision makes of a picture at 16 crops, the most of the models that are known here.
_PICTURE_TOKENS = 2509
# What a price is for, in tokens; and what of money is told, when a token may cost a ten-thousandth of a cent.
_PRICED = 1_000_000
_DECIMALS = 6


class Entry(NamedTuple):
    """All that a payer has spent in a period.

    Attributes:
        period: as "2026-11-22", or "2026-11".
        payer: "client/camera", or "" for the box.

    """

    period: str
    payer: str
    requests: int
    tokens: int
    money: float


@dataclass(frozen=True, slots=True)
class _Amount:
    requests: int = 0
    tokens: int = 0
    money: float = 0.0

    def __add__(self, other: "_Amount") -> "_Amount":
        return _Amount(self.requests + other.requests, self.tokens + other.tokens, self.money + other.money)

    def of(self, kind: _Kind) -> float:
        value: float = getattr(self, kind)
        return value


class _Period:
    """A day or a month, and what was spent in it."""

    def __init__(self, length: Literal["day", "month"]) -> None:
        self.length = length
        self.name = ""
        self.totals: dict[str, _Amount] = {}
        self._clock = ""
        # Payers whose totals have moved here from another name, under which nobody will look for them.
        self._moved: set[str] = set()

    def load(self, entries: Iterable[tuple[str, str, int, int, float]]) -> None:
        """Begin with what was spent in the latest that is known."""
        mine = [Entry(*each) for each in entries if len(each[0]) == len(self._shown(0))]
        self.name = max((each.period for each in mine), default="")
        self.totals = {each.payer: _Amount(*each[2:]) for each in mine if each.period == self.name}

    def turn(self, now: float) -> None:
        """Let it end, if the clock says so."""
        before, self._clock = self._clock, self._shown(now)
        if self._clock == self.name or (self._clock < self.name and not "" < before < self._clock):
            return
        if self.name < _UNSET_BEFORE <= self._clock:
            self._moved = {*self.totals}
        else:
            self.totals.clear()
        self.name = self._clock

    def spend(self, payers: Iterable[str], amount: _Amount) -> list[Entry]:
        """Count what is spent; return the totals that have changed."""
        for payer in payers:
            self.totals[payer] = self.spent(payer) + amount
        changed, self._moved = self._moved.union(payers), set()
        return [Entry(self.name, payer, *astuple(self.totals[payer])) for payer in sorted(changed)]

    def spent(self, payer: str) -> _Amount:
        """Return all that a payer has spent in it."""
        return self.totals.get(payer, _Amount())

    def ends(self, now: float) -> datetime:
        """Return when the clock will show the next one."""
        midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.length == "day":
            return midnight + timedelta(days=1)
        return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)

    def _shown(self, now: float) -> str:
        return datetime.fromtimestamp(now, UTC).strftime(_FORMS[self.length])


class Budget:
    """The budgets of one box.

    Args:
        bounds: what may be spent.
        price: what tokens cost.
        default_max_tokens: the longest answer of a job that does not say.

    Times are wall-clock seconds.

    """

    def __init__(self, bounds: Bounds, price: Price, *, default_max_tokens: int = 512) -> None:
        self._bounds = bounds
        self._price = price
        self._default_max_tokens = default_max_tokens
        # The month first: where it is spent, a new day does not help.
        self._month, self._day = self._periods = _Period("month"), _Period("day")
        self._under_way: dict[Key, tuple[list[str], _Amount]] = {}

    def __repr__(self) -> str:
        spent = ", ".join(f"{each.name or each.length}: {each.spent(_BOX)}" for each in self._periods)
        return f"<Budget {spent}, {len(self._under_way)} under way>"

    def load(self, entries: Iterable[tuple[str, str, int, int, float]]) -> None:
        """Begin with what earlier runs have spent, as `began` and `used` have told it."""
        entries = list(entries)
        for period in self._periods:
            period.load(entries)

    def refusal(self, job: Job, now: float) -> JobError | None:
        """Why a job may not be paid for, or None: of one of its budgets less is left than it may cost at the most."""
        most = self._most(job)
        self._turn(now)
        for period, payer in product(self._periods, self._payers(job)):
            bounds = self._bounds_of(payer, period)
            spent = period.spent(payer) + self._held(payer, apart_from=job.key)
            for kind in _KINDS:
                bound = bounds[kind]
                if bound is not None and spent.of(kind) + most.of(kind) > bound:
                    lack = f"{_rounded(bound - spent.of(kind))} of {bound:,} {kind} left for this {period.length}"
                    need = f"this job may take {_rounded(most.of(kind))}"
                    # A job that takes more than there ever is need not come again.
                    ends = period.ends(now) if most.of(kind) <= bound else None
                    return _refused(job, payer, f"{period.length}.{kind}", f"{lack}, and {need}", ends, now)
        return None

    def began(self, job: Job, now: float) -> list[Entry]:
        """Count a request that leaves now; return the totals that are to be kept.

        The most that its job may cost is held back until it is `used`.
        """
        payers = self._payers(job)
        self._under_way[job.key] = payers, replace(self._most(job), requests=0)
        return self._spend(payers, _Amount(requests=1), now)

    def stayed(self, job: Job, now: float) -> None:
        """Take a request back that was counted and did not leave after all."""
        self._spend(self._payers(job), _Amount(requests=-1), now)

    def used(self, job: Job, usage: Usage, now: float) -> list[Entry]:
        """Charge the tokens of a job that is no longer under way, however that ended; return as `began`."""
        self._under_way.pop(job.key, None)
        return self._spend(self._payers(job), self._amount(usage.prompt_tokens, usage.completion_tokens), now)

    def left(self, now: float) -> dict[str, dict[_Kind, float | None]]:
        """Return what the box may still spend, by period and kind; None where there is no bound."""
        self._turn(now)
        return {period.length: self._left(period) for period in reversed(self._periods)}

    def _left(self, period: _Period) -> dict[_Kind, float | None]:
        bounds, spent = self._bounds_of(_BOX, period), period.spent(_BOX)
        return {
            kind: None if bound is None else max(round(bound - spent.of(kind), _DECIMALS), 0)
            for kind, bound in bounds.items()
        }

    def _turn(self, now: float) -> None:
        for period in self._periods:
            period.turn(now)

    def _spend(self, payers: Sequence[str], amount: _Amount, now: float) -> list[Entry]:
        self._turn(now)
        return [entry for period in self._periods for entry in period.spend(payers, amount)]

    def _payers(self, job: Job) -> list[str]:
        if job.camera is None:
            return [_BOX]
        camera, known = f"{job.client}/{job.camera}", self._month.totals
        return [_BOX, camera if camera in known or len(known) <= _MOST_CAMERAS else _OTHERS]

    def _bounds_of(self, payer: str, period: _Period) -> dict[_Kind, float | None]:
        allowance = self._bounds.box if payer == _BOX else self._bounds.camera
        spending = allowance.day if period.length == "day" else allowance.month
        return {"requests": spending.requests, "tokens": spending.tokens, "money": spending.money}

    def _held(self, payer: str, apart_from: Key) -> _Amount:
        held = (most for key, (payers, most) in self._under_way.items() if payer in payers and key != apart_from)
        return sum(held, _Amount())

    def _most(self, job: Job) -> _Amount:
        """Return what a request of a job costs at the most, by an estimate."""
        longest = job.sampling.max_tokens or self._default_max_tokens
        return replace(self._amount(prompt_tokens(job), longest), requests=1)

    def _amount(self, prompt_tokens: int, completion_tokens: int) -> _Amount:
        money = prompt_tokens * self._price.prompt + completion_tokens * self._price.completion
        return _Amount(0, prompt_tokens + completion_tokens, money / _PRICED)


def prompt_tokens(job: Job) -> int:
    """Estimate the tokens of a job's prompt."""
    text = sum(len(message.text.encode()) for message in job.messages)
    return text // _BYTES_PER_TOKEN + len(job.pictures) * _PICTURE_TOKENS


def _refused(job: Job, payer: str, key: str, lack: str, ends: datetime | None, now: float) -> JobError:
    whose, name = ("the box", "box") if payer == _BOX else (f"camera {job.camera}", "camera")
    wait = "" if ends is None else f", or try again after {ends:%Y-%m-%d %H:%M} UTC"
    return JobError(
        Code.CLOUD_UNAVAILABLE,
        f"the cloud budget of {whose} has {lack}: raise cloud.budget.{name}.{key}{wait}",
        retry_after_s=None if ends is None else math.ceil(ends.timestamp() - now),
        retryable=ends is not None,
        reason="budget",
    )


def _rounded(value: float) -> str:
    return f"{max(round(value, _DECIMALS), 0):,}"
