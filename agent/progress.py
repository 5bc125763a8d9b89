"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from typing import TextIO

_WIDTH = 28
_REDRAW_S = 0.1
# In a log, a line at every quarter says enough.
_STEPS = 4
_MEGABYTE = 1_000_000


class Progress:
    """Shows how far each stage of a long piece of work has come.

    Call it with a stage's name, what is done and the total (None if unknown): bytes, or a few large steps.
    """

    def __init__(self, out: TextIO = sys.stderr) -> None:
        self._out = out
        self._bar = out.isatty()
        self._stage = ""
        self._step = -1
        self._drawn_at = 0.0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Take note of progress, and show it if it is time to."""
        if stage != self._stage:
            self.close()
            self._stage, self._step, self._drawn_at = stage, -1, 0.0
        if self._bar:
            self._draw(done, total)
        else:
            self._log(done, total)

    def close(self) -> None:
        """End the line that a bar is on."""
        if self._bar and self._stage:
            self._out.write("\n")
            self._out.flush()

    def _draw(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._drawn_at < _REDRAW_S and done != total:
            return
        self._drawn_at = now
        full = _WIDTH * done // total if total else 0
        bar = f"[{'#' * full}{'.' * (_WIDTH - full)}] {_amount(done, total)}" if total else _amount(done, total)
        self._out.write(f"\r\x1b[K{self._stage:<10} {bar}")
        self._out.flush()

    def _log(self, done: int, total: int | None) -> None:
        step = _STEPS * done // total if total else 0
        if step > self._step:
            self._step = step
            self._out.write(f"{self._stage}: {_amount(done, total)}\n")
            self._out.flush()


def _amount(done: int, total: int | None) -> str:
    if total is None:
        return f"{done / 1e6:.0f} MB"
    return f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total >= _MEGABYTE else f"{100 * done // max(1, total)} %"
