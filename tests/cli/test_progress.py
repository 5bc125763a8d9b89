"""Progress on a terminal and in a log."""

import io

from agent.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_at_every_quarter() -> None:
    out = io.StringIO()
    progress = Progress(out)
    for done in range(101):
        progress("downloading", done * 1_000_000, 100_000_000)
    assert out.getvalue().splitlines() == [f"downloading: {done} of 100 MB" for done in (0, 25, 50, 75, 100)]


def test_a_few_large_steps_are_told_in_percent() -> None:
    out = io.StringIO()
    Progress(out)("converting", 107, 214)
    assert out.getvalue() == "converting: 50 %\n"


def test_a_terminal_gets_a_bar_that_ends_full() -> None:
    out = Terminal()
    progress = Progress(out)
    progress("converting", 1, 2)
    progress("converting", 2, 2)
    progress.close()
    assert out.getvalue().endswith(f"[{'#' * 28}] 100 %\n")


def test_each_stage_has_its_line() -> None:
    out = Terminal()
    progress = Progress(out)
    progress("downloading", 1, 1)
    progress("converting", 1, 1)
    assert out.getvalue().count("\n") == 1
