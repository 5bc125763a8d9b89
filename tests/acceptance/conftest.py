"""Everything real: the broker, the agent's process, the engine, the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.boxes import Box
from tests.brokers import Broker


@pytest.fixture(params=["5", "3.1.1"])
def version(request: pytest.FixtureRequest) -> str:
    """Each test that a device takes part in is run for both versions of MQTT."""
    found: str = request.param
    return found


@pytest.fixture
def box(tmp_path: Path, broker: Broker, model_folder: Path) -> Callable[..., Box]:
    """Make a box, not yet started."""

    def make(**settings: Any) -> Box:
        return Box(tmp_path, broker.port, model_folder, **settings)

    return make
