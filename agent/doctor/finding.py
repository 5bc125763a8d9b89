"""One line of what the doctor says."""

from dataclasses import dataclass
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

    """

    check: str
    mark: Mark
    text: str
    stops: bool = False
