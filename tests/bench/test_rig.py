"""The bench's box."""

from pathlib import Path

import pytest

from agent.bench.rig import Rig
from agent.demo.children import DemoError
from agent.settings import Settings


async def test_a_box_that_ends_before_it_is_online_is_told_at_once_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"the agent ended by itself \(status 1\)(.|\n)*No module named agent.nothing"):
        async with Rig(Settings()).box("agent.nothing", vision=tmp_path):
            pass
