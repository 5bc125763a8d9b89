"""One line of what the doctor says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Mark: TypeAlias = Literal["well", "wrong", "told"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Args:
        check: what was looked at.
        mark: ``told`` is neither well nor wrong, such as a thing that this box does not have.
        text: what was found; of what is wrong, also what to do.
        stops: whether it keeps the box from serving.
        facts: what a program may want of it, so that it reads no sentence.

    """

    check: str
    mark: Mark
    text: str
    stops: bool = False
    facts: Mapping[str, str | int | None] = field(default_factory=dict)
