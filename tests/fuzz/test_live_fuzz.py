"""The short variant of ``scripts/fuzz``."""

from pathlib import Path

import pytest

from tests.boxes import Box
from tests.brokers import Broker
from tests.fuzz.live import BOX, BROKER, fuzz
from tests.fuzz.messages import Fuzz


@pytest.fixture
def quiet_broker(tmp_path: Path) -> Broker:
    directory = tmp_path / "quiet"
    directory.mkdir()
    return Broker(directory, *BROKER)


async def test_hostile_messages_are_each_answered_and_leave_no_trace(
    tmp_path: Path, quiet_broker: Broker, model_folder: Path, vision_folder: Path
) -> None:
    models = {"text": str(model_folder), "vision": str(vision_folder)}
    with quiet_broker as broker:
        async with Box(tmp_path, broker.port, Path(), models=models, **BOX) as box:
            await box.logged("engine.model_loaded", 2)
            result = await fuzz(box, broker.port, seed=4, count=3000, pauses=2)
    assert result.findings == []


def test_a_seed_makes_the_same_messages() -> None:
    assert [shot for shot, _ in zip(Fuzz(1), range(300), strict=False)] == [
        shot for shot, _ in zip(Fuzz(1), range(300), strict=False)
    ]
