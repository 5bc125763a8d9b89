"""What the spool keeps beside the jobs: what cameras were told, what the cloud has cost, how fast the models are.

Everything here runs in the writer thread, inside its transactions.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from agent.spool.records import Total
from agent.spool.sickness import checked


class Notes:
    """The tables ``cameras``, ``spending`` and ``rates``, of the connection whose ``execute`` is given."""

    def __init__(self, execute: Callable[..., sqlite3.Cursor]) -> None:
        self._execute = execute

    def tell(self, camera: str, policy: bytes) -> None:
        """Keep a camera's policy in the place of its last one; an empty one leaves none."""
        self._execute("DELETE FROM cameras WHERE name = ?", (camera,))
        if policy:
            self._execute("INSERT INTO cameras VALUES (?, ?)", (camera, policy))

    def told(self) -> dict[str, bytes]:
        """Return the policies that are kept, by camera."""
        return dict(self._rows("SELECT name, policy FROM cameras", str, bytes))

    def forget_cameras(self) -> None:
        """Drop all policies."""
        self._execute("DELETE FROM cameras")

    def spend(self, totals: Iterable[Total]) -> None:
        """Keep totals in the place of what their payers had in their periods, and drop days and months but these."""
        for total in totals:
            self._execute("REPLACE INTO spending VALUES (?, ?, ?, ?, ?)", total)
            # A day is written longer than a month is. All but this one, and not all before it: a clock that was wrong
            # may have left one of the future.
            self._execute("DELETE FROM spending WHERE period <> ?1 AND length(period) = length(?1)", (total[0],))

    def spending(self) -> list[Total]:
        """Return the totals that are kept."""
        select = "SELECT period, payer, requests, tokens, money FROM spending"
        return self._rows(select, str, str, int, int, float)

    def keep_rates(self, name: str, value: bytes) -> None:
        """Keep a value in the place of its last one."""
        self._execute("REPLACE INTO rates VALUES (?, ?)", (name, value))

    def rates(self) -> dict[str, bytes]:
        """Return the values that are kept, by name."""
        return dict(self._rows("SELECT name, value FROM rates", str, bytes))

    def _rows(self, select: str, *kinds: type) -> list[Any]:
        return [checked(row, *kinds) for row in self._execute(select).fetchall()]
