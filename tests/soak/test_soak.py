"""The soak itself, for a quarter of a minute: it runs, it counts, and it can say that all is well, or not."""

import csv
import os
import signal
from io import StringIO
from pathlib import Path

import pytest

from tests.soak.__main__ import answers
from tests.soak.soaking import Soaked, soak


async def test_a_box_under_load_answers_everything_and_keeps_nothing_open(
    model_folder: Path, vision_folder: Path
) -> None:
    out = StringIO()
    lines: list[str] = []
    soaked = await soak(model_folder, vision_folder, seconds=9, seed=1, sample_s=0.25, out=out, say=lines.append)
    assert (soaked.lost, soaked.changed, soaked.exit_code) == ([], [], 0)
    # Allocators have not settled in so little time, and a second or two without an answer say nothing.
    assert [fault for fault in soaked.judgement.faults if fault.kind not in {"memory", "load"}] == []
    assert len(list(csv.reader(StringIO(out.getvalue())))) == 1 + sum(map(len, soaked.samples.values()))
    assert lines[0].endswith(" MB")
    assert " ok" in answers(soaked)


async def test_an_agent_that_dies_ends_the_soak_and_is_told(model_folder: Path, vision_folder: Path) -> None:
    out = StringIO()

    def kill(_: str) -> None:
        agent = next(row for row in csv.DictReader(StringIO(out.getvalue())) if row["process"] == "agent")
        os.kill(int(agent["pid"]), signal.SIGKILL)

    soaked = await soak(model_folder, vision_folder, seconds=600, seed=1, sample_s=0.25, out=out, say=kill)
    assert "the agent died under the load, with -9" in [fault.sentence for fault in soaked.judgement.faults]


@pytest.mark.parametrize(
    ("soaked", "sentence"),
    [
        (Soaked(outcomes={"ok": 5, "internal": 5000}), "5000 jobs ended with internal"),
        (Soaked(outcomes={"superseded": 9}), "no job succeeded"),
        (Soaked(lost=["j1"]), "1 jobs have no final"),
        (Soaked(changed=["j1"]), "1 jobs have two different finals"),
        (Soaked(exit_code=3), "the agent ended with 3"),
    ],
)
def test_jobs_that_end_as_nobody_meant_are_told(soaked: Soaked, sentence: str) -> None:
    assert sentence in [fault.sentence for fault in soaked.judgement.faults]
