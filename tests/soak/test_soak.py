"""The soak itself, for half a minute: it runs, it counts, and it can say that all is well."""

import csv
from io import StringIO
from pathlib import Path

from tests.soak.__main__ import table
from tests.soak.soaking import soak


async def test_a_box_under_load_answers_everything_and_keeps_nothing_open(
    model_folder: Path, vision_folder: Path
) -> None:
    out = StringIO()
    lines: list[str] = []
    soaked = await soak(model_folder, vision_folder, seconds=15, seed=1, sample_s=0.5, out=out, say=lines.append)
    assert (soaked.lost, soaked.changed, soaked.exit_code) == ([], [], 0)
    assert soaked.outcomes["ok"] > 0
    assert set(soaked.samples) == {"agent", "smollm2-135m", "shapes-vision"}
    # Allocators have not settled in so little time, so memory may not be judged yet; descriptors may.
    assert [fault for fault in soaked.faults if "memory" not in fault] == []
    assert len(list(csv.reader(StringIO(out.getvalue())))) == 1 + sum(map(len, soaked.samples.values()))
    assert lines[0].endswith(" MB")
    assert "jobs (" in "\n".join(table(soaked))
