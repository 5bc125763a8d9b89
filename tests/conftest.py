"""What every room's tests may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import Broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Start a mosquitto with anonymous access."""
    directory = tmp_path / "broker"
    directory.mkdir()
    with Broker(directory) as running:
        yield running
