"""Engines that run the real model."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent import models
from agent.backoff import Backoff
from agent.engines.local import LocalEngine
from tests.engines.running import ready, serving


def new_engine(folder: Path, **options: object) -> LocalEngine:
    """Make an engine that comes back at once."""
    arguments = {"slots": 4, "threads": None, "default_max_tokens": 32, "backoff": Backoff(0.01, 0.01, random.random)}
    return LocalEngine("test", folder, **{**arguments, **options})  # type: ignore[arg-type]


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
