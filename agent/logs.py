"""Logging: readable on a terminal, JSON elsewhere. Events are in the past tense and carry fields, never a prompt."""

import logging
import sys
from typing import Literal

import structlog

# A topic may have 65,535 bytes, and a stranger chooses it.
_LONGEST = 300


def configure(level: str = "info", style: Literal["auto", "console", "json"] = "auto") -> None:
    """Set up structlog for the whole process; to standard error, so that output stays output."""
    console = sys.stderr.isatty() if style == "auto" else style == "console"
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            tame,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        # Modules' loggers would keep the first level for ever, and a reload may bring another. It costs an event 3 µs.
        cache_logger_on_first_use=False,
    )


def tame(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what no printable text has in it, and cut what is too long; a traceback line by line.

    What a stranger names a topic must neither reach a terminal as its control sequences, nor look like another
    event, nor fill the disk. A structlog processor.
    """
    for key, value in event.items():
        if isinstance(value, str):
            lines = value.split("\n") if key == "exception" else [value]
            event[key] = "\n".join(map(_tamed, lines))
    return event


def _tamed(text: str) -> str:
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    if cut.isprintable():
        return cut
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in cut)
