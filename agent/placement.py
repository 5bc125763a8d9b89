"""Where a job runs: a pure decision on the job, and on what each place could do for it now.

docs/placement.md has the whole of it on a page, with an example.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from agent.contract.errors import NO_VISION, Code, JobError
from agent.contract.jobs import Job, Policy

Where: TypeAlias = Literal["local", "cloud"]
# Where jobs stand in line: a queue and an engine each.
Station: TypeAlias = Literal["text", "vision", "cloud"]
LOCAL: tuple[Station, ...] = ("text", "vision")
# What failed so far, and how.
Tried: TypeAlias = tuple[tuple[Where, JobError], ...]

# Where a policy lets a job run, the preferred place first.
_ORDERS: dict[Policy, tuple[Where, ...]] = {
    "prefer_local": ("local", "cloud"),
    "local_only": ("local",),
    "prefer_cloud": ("cloud", "local"),
    "cloud_only": ("cloud",),
}
# Why a job passes a place by, where the error's own word would tell less.
_WORDS = {
    Code.DEADLINE: "deadline",
    Code.QUEUE_FULL: "queue",
    Code.MODEL_UNAVAILABLE: "model",
    Code.UNSUPPORTED: "model",
}
# What no forecast sees: a job goes elsewhere for these though it would be in time.
STRAINS = frozenset({"memory", "heat", "model"})


@dataclass(frozen=True, slots=True)
class Place:
    """What one station could do for a job now.

    Attributes:
        model: the name of the model that would answer.
        refusal: why it cannot take the job at all, or not now.
        ends_s: until the job would have ended, in seconds, at the cautious end of what is foreseen; None: no idea.
        likely_s: the same at its likeliest, if it does nothing now; None if it does.
        saturated: one word for why jobs that may go elsewhere should; None if all is well.

    """

    model: str
    refusal: JobError | None = None
    ends_s: float | None = None
    likely_s: float | None = None
    saturated: str | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """What a decision needs to know of the box: what its stations could do for the job, and its own policy."""

    stations: Mapping[Station, Place]
    policy: Policy = "prefer_local"


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a job runs, at which station, on which model, and one word for why, which the final carries.

    ``ends_s`` is as in `Place`.
    """

    where: Where
    reason: str
    station: Station
    model: str
    ends_s: float | None = None


class _Offer(NamedTuple):
    """What one place comes to: either an error, or a station that would do it, perhaps unwillingly."""

    where: Where
    error: JobError | None
    station: Station = "text"
    place: Place = Place("")
    strain: str | None = None
    tried: bool = False

    def might_do_within(self, left_s: float | None) -> bool:
        """Whether it is only out of caution that it would not."""
        late = self.error is not None and self.error.code is Code.DEADLINE and not self.tried
        return late and left_s is not None and self.place.likely_s is not None and self.place.likely_s <= left_s

    @property
    def word(self) -> str:
        """Why the job goes on from here to the next place."""
        if self.error is None:
            return self.strain or "preferred"
        if self.tried:
            return "fallback"
        if self.where == "cloud":
            return "required" if self.error.code is Code.PRIVACY else "fallback"
        return _WORDS.get(self.error.code, "fallback")


def place(job: Job, box: Box, *, left_s: float | None = None, tried: Tried = ()) -> Decision | JobError:
    """Decide where ``job`` runs, or why it runs nowhere.

    The first place in the policy's order that would have it done in time and is not saturated; if there is none, the
    first that would have it done in time; if there is none, the first that is idle and might.

    Args:
        job: what is to be placed.
        box: what its places could do for it now.
        left_s: seconds to its deadline; None if it has none.
        tried: where it has failed already, and how; it goes there no more.

    """
    order = _order(job, box.policy)
    if isinstance(order, JobError):
        return order
    offers = [_offer(where, job, box, left_s, dict(tried).get(where)) for where in order]
    able = [index for index, offer in enumerate(offers) if offer.error is None]
    able = able or [index for index, offer in enumerate(offers) if offer.might_do_within(left_s)]
    if not able:
        return _refused(box, offers)
    best = next((index for index in able if offers[index].strain is None), able[0])
    chosen = offers[best]
    return Decision(chosen.where, _reason(offers, best, box), chosen.station, chosen.place.model, chosen.place.ends_s)


def _order(job: Job, policy: Policy) -> tuple[Where, ...] | JobError:
    """Return where the job may run, by what it asks for and what the box allows, the preferred place first."""
    mine = _ORDERS[policy]
    asked = tuple(where for where in _ORDERS[job.placement or policy] if where == "local" or not job.private)
    order = tuple(where for where in asked if where in mine)
    if order:
        return order
    if not asked:
        return JobError(Code.PRIVACY, "the job is private and asks for cloud_only: leave one of the two out")
    if "local" in asked:
        sentence = "the job must stay on the box, whose own policy is cloud_only: send it to another box"
        return JobError(Code.PRIVACY, sentence)
    sentence = "this box keeps every job to itself: ask for prefer_cloud or prefer_local instead"
    return JobError(Code.CLOUD_UNAVAILABLE, sentence, retryable=False)


def _offer(where: Where, job: Job, box: Box, left_s: float | None, failed: JobError | None) -> _Offer:
    station = failed or ("cloud" if where == "cloud" else _station(job, box))
    if isinstance(station, JobError):
        return _Offer(where, station, tried=failed is not None)
    found = box.stations.get(station)
    error = _no_cloud(job, box) if found is None else _obstacle(found, job, box, left_s)
    if found is None:
        return _Offer(where, error)
    if error is not None:
        return _Offer(where, error, station, found)
    foreseen = left_s is not None and found.ends_s is not None
    return _Offer(where, None, station, found, found.saturated if not foreseen or found.saturated in STRAINS else None)


def _obstacle(found: Place, job: Job, box: Box, left_s: float | None) -> JobError | None:
    """Tell why a station is out of the question."""
    if found.refusal is not None:
        return found.refusal
    if job.model not in (None, found.model):
        return _unserved(box)
    if left_s is not None and found.ends_s is not None and found.ends_s > left_s:
        return _late(found.ends_s, left_s)
    return None


def _station(job: Job, box: Box) -> Station | JobError:
    """Choose the first model of the box that can do the job and has the name that it asks for, if it asks for one."""
    local = {station: box.stations[station] for station in LOCAL if station in box.stations}
    if job.pictures and "vision" not in local:
        return JobError(Code.UNSUPPORTED, NO_VISION)
    named = [station for station, found in local.items() if job.model in (None, found.model)]
    able = [station for station in named if station == "vision" or not job.pictures]
    if able:
        return able[0]
    if named:
        sentence = f"`{job.model}` reads text alone: leave `model` out, or name `{local['vision'].model}` for pictures"
        return JobError(Code.UNSUPPORTED, sentence)
    return _unserved(box)


def _unserved(box: Box) -> JobError:
    names = list(dict.fromkeys(found.model for found in box.stations.values() if found.model))
    served = " and ".join(f"`{name}`" for name in names)
    sentence = f"this box serves {served}: leave `model` out, or name {'one of those' if len(names) > 1 else 'that'}"
    return JobError(Code.MODEL_UNAVAILABLE, sentence, retryable=False)


def _no_cloud(job: Job, box: Box) -> JobError:
    if job.pictures and "vision" not in box.stations:
        return JobError(Code.UNSUPPORTED, NO_VISION)
    sentence = "this box has no cloud endpoint: ask for prefer_cloud or prefer_local instead"
    return JobError(Code.CLOUD_UNAVAILABLE, sentence, retryable=False)


def _late(ends_s: float, left_s: float) -> JobError:
    sentence = (
        f"the job would take up to {ends_s:.1f} s, and its deadline is in {max(left_s, 0):.1f} s: allow it more time, "
        "or try again when the box is less busy"
    )
    return JobError(Code.DEADLINE, sentence, retry_after_s=float(max(1, math.ceil(ends_s - left_s))))


def _reason(offers: list[_Offer], best: int, box: Box) -> str:
    if len(offers) == 1:
        return "required"
    if best == 0:
        return "preferred"
    first = offers[0]
    return "no_cloud" if first.where == "cloud" and "cloud" not in box.stations else first.word


def _refused(box: Box, offers: list[_Offer]) -> JobError:
    """Say why the job runs nowhere: the preferred place's error, with what is to be said of the other one."""
    there = [offer for offer in offers if offer.where == "local" or "cloud" in box.stations]
    said = [(offer.where, offer.error) for offer in there or offers[:1] if offer.error is not None]
    (_, first), *more = said
    if not more:
        return first
    waits = [error.retry_after_s for _, error in said if error.retry_after_s is not None]
    return JobError(
        first.code,
        "; ".join(f"{'in the cloud' if where == 'cloud' else 'here'}: {error.message}" for where, error in said),
        retry_after_s=min(waits, default=None),
        retryable=any(error.can_retry for _, error in said),
        reason=first.reason,
    )
