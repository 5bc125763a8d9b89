"""Logging: readable on a terminal, JSON elsewhere. Events are in the past tense and carry fields, never a prompt."""

import logging
import sys
from typing import Literal

import structlog


def configure(level: str = "info", style: Literal["auto", "console", "json"] = "auto") -> None:
    """Set up structlog for the whole process; to standard error, so that output stays output."""
    console = sys.stderr.isatty() if style == "auto" else style == "console"
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not console:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
