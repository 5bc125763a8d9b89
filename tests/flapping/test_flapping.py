"""A cloud that flaps, for a quarter of a minute. ``scripts/flapping`` goes through every fault, and on for longer."""

from pathlib import Path

from agent.standin import Fault
from tests.flapping.judging import check
from tests.flapping.running import run
from tests.flapping.story import turns


async def test_nothing_is_lost_spliced_late_or_leaked_while_the_cloud_flaps(tmp_path: Path, model_folder: Path) -> None:
    history = await run(
        tmp_path, model_folder, faults=[Fault.BAD_KEY, Fault.CUT_AMID], turn_s=2, random_s=8, seed=5, say=print
    )
    assert check(history) == []
    assert any(turn.opened for turn in turns(history.log))
    assert {told[0].body["placement"]["where"] for told in history.finals().values()} == {"local", "cloud", "none"}
