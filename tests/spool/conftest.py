from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from agent.spool import Spool
from tests.spool.samples import final, job, key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool.db"


@pytest.fixture
async def spool(path: Path) -> AsyncIterator[Spool]:
    opened = await Spool.open(path)
    yield opened
    await opened.close()


@pytest.fixture
async def damaged(path: Path) -> Path:
    """Make a spool of one sent final, an unsent one, and two requests, closed."""
    spool = await Spool.open(path)
    await spool.finish(final("sent", b"1"))
    await spool.sent([1])
    await spool.finish(final("unsent", b"2"))
    await spool.accept(job("a"), 1.0)
    await spool.accept(job("b"), 2.0)
    await spool.cancel(key("b"))
    await spool.tell("porch", b"policy")
    await spool.spent([("2026-11", "", 1, 20, 0.5)])
    await spool.keep_rates("text", b"rates")
    await spool.close()
    return path


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as events:
        yield events
