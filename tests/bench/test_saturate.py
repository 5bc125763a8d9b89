"""``bench --saturate``: when jobs come, what they amount to, its own cloud, and its picture."""

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import httpx
import pytest

from agent.bench import saturate_cloud, saturate_picture
from agent.bench.saturate_load import Load, Told, Yardstick, arrivals, must_leave, quantile
from agent.bench.saturate_report import measure, rows, table
from agent.errors import UsageError, UserError
from agent.standin import KEY, MODELS

# A lone job takes 1 s, the engine does one a second, and a final is in time for 3 s.
YARDSTICK = Yardstick(1.0, 1.0)


def here(due: float, end: float, *, start: float | None = None, foretold: float | None = None) -> Told:
    return Told(due, end, "SUCCEEDED", "local", due, due if start is None else start, foretold)


def there(due: float, end: float, *, foretold: float | None = None) -> Told:
    return Told(due, end, "SUCCEEDED", "cloud", due, due, foretold)


def refused(due: float, end: float) -> Told:
    return Told(due, end, "REJECTED", "none")


def load(*told: Told, factor: float = 4, cloud: bool = False, seconds: float = 10) -> Load:
    return Load(factor, cloud, YARDSTICK, seconds, told)


def test_a_poisson_process_has_gaps_whose_mean_and_deviation_are_the_inverse_of_its_rate() -> None:
    times = arrivals(4.0, 5_000, Random(1))
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert (mean, deviation) == pytest.approx((0.25, 0.25), rel=0.05)
    assert times[-1] < 5_000


def test_the_same_seed_brings_jobs_at_the_same_moments() -> None:
    assert arrivals(1.0, 50, Random("1 0.5")) == arrivals(1.0, 50, Random("1 0.5"))


def test_at_another_capacity_jobs_come_at_the_same_moments_but_for_the_scale() -> None:
    assert arrivals(2.0, 25, Random(7)) == pytest.approx([moment / 2 for moment in arrivals(1.0, 50, Random(7))])


@pytest.mark.parametrize(
    ("due", "left"),
    [
        ([], 0),
        ([0, 5, 9], 0),
        ([0, 0, 0], 0),  # the third ends at 3, which is in time
        ([0, 0, 0, 0], 1),
        ([0, 0, 0, 0.5, 1], 1),  # the fourth would end at 4, too late; the fifth, with the fourth gone, just in time
    ],
)
def test_an_oracle_sends_away_what_cannot_end_in_time(due: list[float], left: int) -> None:
    assert must_leave(due, YARDSTICK) == left


def test_at_half_the_capacity_even_an_oracle_sends_2_7_percent_away() -> None:
    due = arrivals(0.5, 400_000, Random(1))
    assert must_leave(due, YARDSTICK) / len(due) == pytest.approx(0.027, abs=0.001)


@pytest.mark.parametrize(("values", "share", "found"), [([3, 1, 2], 0.5, 2), (range(1, 101), 0.99, 99), ([7], 0.99, 7)])
def test_a_quantile_is_one_of_the_values(values: Sequence[float], share: float, found: float) -> None:
    assert quantile(values, share) == found


def test_an_answer_after_the_deadline_is_late_and_no_answer() -> None:
    one = load(here(0, 3), here(0, 3.001), there(0, 4), Told(0, 3, "TIMED_OUT", "local", 0, 0))
    assert (one.within, len(one.answered("local", "cloud")), one.late) == (0.25, 1, 3)


def test_a_refusal_is_neither_an_answer_nor_late() -> None:
    one = load(here(0, 1), refused(0, 0.01))
    assert (one.within, len(one.refused), one.late, one.took_s) == (0.5, 1, 0, [1])


def test_goodput_counts_until_the_last_final() -> None:
    assert load(here(0, 1), there(9, 11), here(9.5, 12.5), seconds=10).goodput == pytest.approx(3 / 12.5)


def test_the_engine_is_busy_while_it_has_a_job_of_its_own_and_no_moment_twice() -> None:
    jobs = [here(0, 2, start=1), here(0, 4, start=1.5), here(5, 6), there(6, 9), here(9, 12), refused(4.2, 4.9)]
    assert load(*jobs, seconds=10).busy == pytest.approx((3 + 1 + 1) / 10)


def test_a_prediction_is_off_by_its_share_of_the_real_time_from_when_it_was_made() -> None:
    assert Told(0, 5, "SUCCEEDED", "local", accepted_s=1, started_s=2, foretold_s=3).misjudged == pytest.approx(0.25)


def test_a_job_that_got_no_prediction_has_no_error() -> None:
    assert load(here(0, 1), refused(0, 1), here(0, 2, foretold=1)).misjudged("local") == [0.5]


def test_every_line_of_the_issue_is_held_against_its_own_load() -> None:
    calm = load(*[there(0, 1)] * 2, here(5, 6), factor=0.5, cloud=True)
    helped = load(here(0, 2.5, foretold=2), *[there(0, 1, foretold=1.5)] * 3, refused(0, 0.3), cloud=True)
    alone = load(here(0, 1), *[refused(0, 0.01)] * 9, refused(0, 0.06), factor=4, cloud=False)
    found = [(row.value, row.bound, row.holds) for row in rows([calm, helped, alone])]
    assert found == [
        (2, 0, False),
        (pytest.approx(80), 99, False),
        (pytest.approx(25), 90, False),
        (pytest.approx(0.1), 0.9, False),
        (pytest.approx(60), 50, False),
        (pytest.approx(20), 15, False),
        (pytest.approx(20), 40, True),
        (pytest.approx(50), 15, False),
        (pytest.approx(50), 40, False),
    ]


def test_a_bound_on_what_never_happened_does_not_hold() -> None:
    idle = [load(here(0, 1), factor=factor, cloud=cloud) for factor, cloud in ((0.5, True), (4, True), (4, False))]
    assert [row.holds for row in rows(idle) if "refused" in row.what or "predicted" in row.what] == [False] * 5


def test_a_script_reads_null_where_there_is_nothing_to_tell_of() -> None:
    told = load(here(0, 1, foretold=1)).as_dict()
    assert (told["refusal_p99_s"], told["cloud_error_p50"], told["local_error_p50"]) == (None, None, 0)


def test_the_table_has_a_line_for_each_load() -> None:
    lines = table([load(here(0, 2), refused(0, 0.02)), load(there(0, 1), factor=0.5, cloud=True)]).splitlines()
    assert lines[2] == "| 4 x | no | 2 | 1 | 0 | 1 | 0 | 50.0 % | 20, 20 ms | 0.10 x | 20 % | 2.00, 2.00 x |"
    assert len(lines) == 4


def test_what_the_loads_are_multiples_of_is_said_once_for_each_box() -> None:
    said = measure([load(here(0, 1)), load(here(0, 1), factor=1), load(there(0, 1), cloud=True)])
    assert said == (
        "A lone job's time and the capacity: of the box without cloud 1 s and 1 jobs/s, "
        "of the box with a cloud 1 s and 1 jobs/s."
    )


async def test_the_cloud_of_the_bench_takes_300_ms_to_its_first_token() -> None:
    asked = {"model": MODELS[0], "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    async with (
        saturate_cloud.endpoint() as cloud,
        httpx.AsyncClient(base_url=cloud.base_url, headers={"Authorization": f"Bearer {KEY}"}) as http,
    ):
        begun = time.perf_counter()
        answer = await http.post("/chat/completions", json=asked)
        assert (answer.status_code, time.perf_counter() - begun >= 0.3) == (200, True)
        assert cloud.key_file.read_text() == KEY


def test_the_picture_is_written(tmp_path: Path) -> None:
    saturate_picture.check(tmp_path / "loads.png")
    saturate_picture.draw([load(here(0, 1)), load(there(0, 1), refused(0, 1), cloud=True)], tmp_path / "loads.png")
    assert (tmp_path / "loads.png").stat().st_size > 5_000


@pytest.mark.parametrize("name", ["loads.txt", "nowhere/loads.png"])
def test_a_picture_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"name a \.png, \.svg or \.pdf file in a folder that exists"):
        saturate_picture.check(tmp_path / name)


def test_a_missing_dev_group_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs uvicorn .*: install the dev group"):
        saturate_cloud.check()
    with pytest.raises(UserError, match="needs matplotlib: install the dev group"):
        saturate_picture.check(tmp_path / "loads.png")
