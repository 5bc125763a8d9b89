"""The promises under fire, for half a minute: every kind of fault once. ``scripts/chaos`` goes on for longer."""

from pathlib import Path

import pytest

from tests.chaos import plan
from tests.chaos.checking import check
from tests.chaos.running import own_disk, run


# Nothing here is about speed: on a busy machine it takes as long as it takes.
@pytest.mark.timeout(600)
async def test_nothing_is_lost_changed_or_run_again(tmp_path: Path, model_folder: Path, vision_folder: Path) -> None:
    models = {"text": model_folder, "vision": vision_folder}
    with own_disk(tmp_path) as disk:
        history = await run(plan.make(1798, 48, 22, disk=disk is not None), tmp_path, models, disk, print)
    assert check(history) == []
