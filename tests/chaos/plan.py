"""What a run does, in which order: decided by a seed alone, so that the same seed does the same again."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple, TypeAlias

from agent.contract.jobs import Key
from tests.chaos.history import MOMENTS, Moment

CLIENTS = {"five-a": "5", "five-b": "5", "three-a": "3.1.1", "three-b": "3.1.1"}
"""Clients and the version of MQTT that each speaks."""
CAMERAS = ("porch", "yard")
PICTURES = 20
"""How many different pictures there are."""

Form: TypeAlias = Literal["text", "picture", "frame"]


class Fault(NamedTuple):
    """Something that goes wrong: with what, how, and for how long in seconds."""

    target: str
    how: str
    seconds: float


# The shortest and the longest time of each fault, in seconds. Long enough to hit what comes after it, too, and short
# enough for two hundred of them in twenty minutes.
_FAULTS = {
    ("agent", "kill"): (0.0, 1.5),
    ("agent", "stop"): (0.2, 3.0),
    ("agent", "restart"): (0.0, 1.0),
    ("text worker", "kill"): (0.0, 0.0),
    ("text worker", "stop"): (0.2, 3.0),
    ("vision worker", "kill"): (0.0, 0.0),
    ("vision worker", "stop"): (0.2, 3.0),
    ("broker", "kill"): (0.0, 1.5),
    ("broker", "stop"): (0.2, 3.0),
    ("link", "cut"): (0.0, 0.0),
    ("link", "half-close"): (0.0, 0.0),
    ("link", "delay"): (0.5, 3.0),
    ("link", "black hole"): (0.5, 3.0),
    ("link", "trickle"): (0.5, 3.0),
    ("disk", "fill"): (0.5, 3.0),
}
# The one that the promises are about comes twice as often.
_KINDS = (*_FAULTS, ("agent", "kill"))
_SPARES_THE_AGENT = tuple(kind for kind in _KINDS if kind not in {("agent", "kill"), ("agent", "restart")})
# One in six of these lasts until the other side gives up: on a link after one and a half keepalives of 5 s, on a worker
# after 10 s or ten times its longest step, which was 2 s after the agent had been stopped itself.
_GIVEN_UP_S = {
    ("link", "black hole"): (8.0, 10.0),
    ("agent", "stop"): (12.0, 16.0),
    ("broker", "stop"): (12.0, 16.0),
    ("text worker", "stop"): (25.0, 30.0),
    ("vision worker", "stop"): (25.0, 30.0),
}
# A request is on disk, and a job's final stored and sent, within some milliseconds of what passes the proxy.
_AT_ONCE_S, _ANY_TIME_S = 0.003, 0.4
# The last part of a run leaves the agent's process alone, so that its memory and files can be compared.
_LAST_PART = 0.25


@dataclass(frozen=True)
class Ask:
    """A request, published once.

    Attributes:
        form: JSON text, JSON with a picture, or a raw frame whose id is its correlation data.
        picture: which one, for the latter two.
        fields: of the JSON; of a frame, its user properties.

    """

    key: Key
    form: Form
    fields: dict[str, Any]
    picture: int = 0
    camera: str = CAMERAS[0]


@dataclass(frozen=True)
class Repeat:
    """The same request under the same id again, at once or when its final is there."""

    ask: Ask
    after_final: bool


@dataclass(frozen=True)
class Cancel:
    """A cancel, at once or when the final is there; perhaps of an id that nobody used."""

    key: Key
    after_final: bool


@dataclass(frozen=True)
class Strike:
    """Faults that happen together.

    Attributes:
        upon: what is to pass between the agent and the broker first, if anything.
        after_s: how long after that, or after the step before, they happen, in seconds.

    """

    faults: tuple[Fault, ...]
    upon: Moment | None
    after_s: float


@dataclass(frozen=True)
class Settle:
    """Let everything come to rest. From here on the agent's process is left alone."""


Step: TypeAlias = Ask | Repeat | Cancel | Strike | Settle


def make(seed: int, jobs: int, faults: int, *, disk: bool = True) -> list[Step]:
    """Make a plan; ``disk`` is whether there is one to be filled. If not, other faults take the place of that."""
    random = Random(seed)
    kinds, sparing = ([kind for kind in each if disk or kind[0] != "disk"] for each in (_KINDS, _SPARES_THE_AGENT))
    steps: list[tuple[float, Step]] = []
    for number in range(jobs):
        ask = _ask(random, number)
        steps.append((number, ask))
        steps += [(number + random.uniform(0, 6), each) for each in _afterwards(random, ask)]
    # The first jobs are the warm-up; after the last fault, some are left to be hit by what it leaves behind.
    first, last = min(5, jobs), max(jobs - 5, 0)
    settle = jobs * (1 - _LAST_PART)
    steps.append((settle, Settle()))
    strikes = _strikes(random, kinds, round(faults * (1 - _LAST_PART)))
    steps += _spread(random, strikes, first, settle)
    strikes = _strikes(random, sparing, faults - round(faults * (1 - _LAST_PART)))
    steps += _spread(random, strikes, settle, last)
    return [step for _, step in sorted(steps, key=lambda each: each[0])]


def _ask(random: Random, number: int) -> Ask:
    form: Form = random.choices(("text", "picture", "frame"), (80, 10, 10))[0]
    # Only MQTT 5 has correlation data, which is where a raw frame has its id.
    clients = [name for name, version in CLIENTS.items() if form != "frame" or version == "5"]
    key = Key(random.choice(clients), f"j{number}")
    picture, camera = random.randrange(PICTURES), random.choice(CAMERAS)
    if form == "frame":
        return Ask(key, form, {"max_tokens": str(random.randint(4, 16))}, picture, camera)
    fields = _fields(random, number)
    if form == "text":
        return Ask(key, form, fields)
    return Ask(key, form, {**fields, "prompt": "What is in the picture?", "detail": "low"}, picture, camera)


def _fields(random: Random, number: int) -> dict[str, Any]:
    subject = random.choice(("a lighthouse", "the old mill", "two brothers", "a fox in the barn", "the first snow"))
    long = (
        " ".join(f"It has {count} doors." for count in range(random.randint(10, 40))) if random.random() < 0.1 else ""
    )
    fields: dict[str, Any] = {"prompt": f"Tell me story number {number}, about {subject}. {long}"}
    # Greedy, so that every attempt says the same and a text can be compared; or by chance, so that no two do, and one
    # that goes on where another stopped is found out.
    fields["temperature"] = 1 if random.random() < 0.25 else 0
    fields["max_tokens"] = random.randint(100, 160) if random.random() < 0.03 else random.randint(4, 24)
    if random.random() < 0.08:
        fields["deadline_s"] = round(random.uniform(0.3, 6), 1)
    if random.random() < 0.2:
        fields["priority"] = random.choice(("low", "high"))
    if random.random() < 0.1:
        fields["stream"] = False
    return fields


def _afterwards(random: Random, ask: Ask) -> list[Step]:
    """Return what else is done about a request."""
    steps: list[Step] = []
    if random.random() < 0.15:
        steps.append(Repeat(ask, after_final=random.random() < 0.4))
    if random.random() < 0.10:
        steps.append(Cancel(ask.key, after_final=random.random() < 0.2))
    if random.random() < 0.02:
        steps.append(Cancel(Key(ask.key.client, f"no-{ask.key.id}"), after_final=False))
    return steps


def _strikes(random: Random, kinds: Sequence[tuple[str, str]], count: int) -> list[Strike]:
    """Return strikes of ``count`` faults, in rounds of all kinds; one in six is of two faults at once."""
    left: list[Fault] = []
    while len(left) < count:
        left += [_fault(random, *kind) for kind in random.sample(kinds, len(kinds))]
    del left[count:]
    strikes = []
    while left:
        faults = [left.pop()]
        if left and left[-1].target != faults[0].target and random.random() < 1 / 6:
            faults.append(left.pop())
        upon = random.choice(MOMENTS) if random.random() < 0.5 else None
        after_s = random.uniform(0, _ANY_TIME_S if upon is None else _AT_ONCE_S)
        strikes.append(Strike(tuple(faults), upon, round(after_s, 4)))
    return strikes


def _fault(random: Random, target: str, how: str) -> Fault:
    shortest, longest = _FAULTS[target, how]
    if (target, how) in _GIVEN_UP_S and random.random() < 1 / 6:
        shortest, longest = _GIVEN_UP_S[target, how]
    return Fault(target, how, round(random.uniform(shortest, longest), 2))


def _spread(random: Random, strikes: list[Strike], first: float, last: float) -> list[tuple[float, Step]]:
    """Place strikes evenly, and each a little beside its place."""
    between = (last - first) / max(1, len(strikes))
    return [(first + (number + random.random()) * between, each) for number, each in enumerate(strikes)]
