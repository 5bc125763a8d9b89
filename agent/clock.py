"""Whether somebody set the wall clock. Pure: it is told what the clocks say."""

# Time servers move a clock that is less than this off by letting it run faster or slower, which both clocks follow.
_LEAST_S = 2.0


class WallClock:
    """Compares the wall clock with one that nobody can set.

    A box without a battery for its clock starts in the past, and is set right by hours or years once it has a network.

    Args:
        wall: seconds since 1970.
        steady: seconds on a clock that also counts while the machine sleeps, as CLOCK_BOOTTIME: a sleep is no jump.

    """

    def __init__(self, wall: float, steady: float) -> None:
        self._ahead = wall - steady

    def __repr__(self) -> str:
        return f"<WallClock {self._ahead:.3f} s ahead>"

    def jumped(self, wall: float, steady: float) -> float | None:
        """Tell by how many seconds it was set, forward or, negative, back; None if it was not. Small steps add up.

        It is told again until it is `noted`.
        """
        by_s = wall - steady - self._ahead
        return by_s if abs(by_s) >= _LEAST_S else None

    def noted(self, by_s: float) -> None:
        """Take a jump for known."""
        self._ahead += by_s
