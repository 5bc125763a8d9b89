"""What every room's tests may ask for."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from agent.models import pull
from tests.brokers import Broker

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("edge-slm", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("edge-slm")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Start a mosquitto with anonymous access."""
    directory = tmp_path / "broker"
    directory.mkdir()
    with Broker(directory) as running:
        yield running


@pytest.fixture(scope="session")
def model_store() -> Path:
    """Find a store with smollm2-135m in it; pulled where it is not there yet, which takes half a minute."""
    store = Path(os.environ.get("EDGE_SLM_TEST_MODELS", "~/.cache/edge-slm/models")).expanduser()
    pull("smollm2-135m", store)
    return store


@pytest.fixture(scope="session")
def vision_folder(model_store: Path) -> Path:
    """Find the small model that sees, a copy of the one in the package."""
    pull("shapes-vision", model_store)
    return model_store / "shapes-vision"


@pytest.fixture(scope="session")
def model_folder(model_store: Path) -> Path:
    """Find the real model."""
    return model_store / "smollm2-135m"
