"""Engines that run the real model."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent import models
from agent.backoff import Backoff
from agent.engines.local import LocalEngine
from agent.engines.spec import Rung, Spec
from tests.engines.running import ready, serving


def new_engine(folder: Path, *others: Rung, slots: int = 4, leak_bytes: int | None = None, **how: Any) -> LocalEngine:
    """Make an engine that comes back at once; it prefers the ``others`` to the processor."""
    spec = Spec("test", (*others, Rung("cpu", folder)), slots, None, 32, leak_bytes)
    return LocalEngine(spec, **{"backoff": Backoff(0.01, 0.01, random.random), **how})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model_folder: Path) -> AsyncIterator[LocalEngine]:
    """Serve one engine for a module's tests. Each must do with whatever caches the others left."""
    running = new_engine(model_folder)
    async with serving(running):
        await ready(running)
        yield running


@pytest.fixture(scope="session")
def vision_folder() -> Path:
    """Find the model that sees coloured shapes."""
    return Path(models.__file__).with_name("shapes-vision")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seeing(vision_folder: Path) -> AsyncIterator[LocalEngine]:
    """Serve one engine that sees for a module's tests."""
    running = new_engine(vision_folder, slots=2)
    async with serving(running):
        await ready(running)
        yield running


@pytest_asyncio.fixture
async def fresh_engine(model_folder: Path) -> AsyncIterator[LocalEngine]:
    """Serve an engine that nobody has used, and that a test may break."""
    running = new_engine(model_folder)
    async with serving(running):
        await ready(running)
        yield running
