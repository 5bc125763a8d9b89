"""Commands run in the tests' own process, and may configure it."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logging_undone() -> Iterator[None]:
    """Forget a standard error that pytest closes after the test."""
    yield
    structlog.reset_defaults()
