"""What the soak says of samples: a leak of three percent in the last half is one, noise is none."""

from collections.abc import Callable
from dataclasses import astuple, fields
from io import StringIO
from random import Random

import pytest

from tests.soak.__main__ import conclusion, read, table
from tests.soak.verdict import AT_REST, Sample, judge

# An hour, every second.
_LOOKS = 3601
_LEVEL = 100_000_000
PROCESSES = list(AT_REST)


def look(number: int, process: str = "agent", level: float = _LEVEL, descriptors: int = 19, pid: int = 7) -> Sample:
    return Sample(float(number), process, pid, round(level), round(level / 2), descriptors, 5, 3 * number)


def found(process: str, samples: list[Sample]) -> list[str]:
    """Judge an hour in which the other processes are well."""
    others = {each: [look(number, each) for number in range(_LOOKS)] for each in AT_REST}
    return [fault.sentence for fault in judge(others | {process: samples}).faults]


def hour(process: str, level: Callable[[int], float]) -> list[Sample]:
    return [look(number, process, level(number)) for number in range(_LOOKS)]


def test_memory_and_descriptors_that_stay_are_well() -> None:
    assert found("agent", hour("agent", lambda _: _LEVEL)) == []


@pytest.mark.parametrize("process", PROCESSES)
def test_noise_is_no_leak(process: str) -> None:
    random = Random(1)
    assert found(process, hour(process, lambda _: _LEVEL * random.uniform(0.7, 1.0))) == []


def test_caches_that_come_and_go_in_steps_are_no_leak() -> None:
    # As the text model's do: of four there is each or is not, and a step is 4 % of what is there without them.
    random = Random(1)
    there = [True, False, True, False]

    def level(_: int) -> float:
        there[:] = [each ^ (random.random() < 1 / 32) for each in there]
        return _LEVEL * (1 + 0.04 * sum(there))

    assert found("smollm2-135m", hour("smollm2-135m", level)) == []


def test_pictures_that_few_looks_fall_on_are_no_leak() -> None:
    pictures = {2000, 2100, 3500}
    assert found("shapes-vision", hour("shapes-vision", lambda number: _LEVEL * (1 + (number in pictures) / 2))) == [
        "shapes-vision: its most memory grew by +50.0%"
    ]
    pictures.add(600)
    assert found("shapes-vision", hour("shapes-vision", lambda number: _LEVEL * (1 + (number in pictures) / 2))) == []


@pytest.mark.parametrize("process", PROCESSES)
def test_what_grows_before_the_last_half_is_warming_up(process: str) -> None:
    assert found(process, hour(process, lambda number: _LEVEL * min(1.0, 0.5 + number / _LOOKS))) == []


@pytest.mark.parametrize("process", PROCESSES)
def test_a_leak_of_more_than_three_percent_in_the_last_half_is_found_under_noise(process: str) -> None:
    random = Random(1)
    leak = 0.04 / (_LOOKS / 2)
    samples = hour(process, lambda number: _LEVEL * (1 + leak * number + random.uniform(-0.3, 0)))
    assert f"{process}: its memory at rest moves by +" in found(process, samples)[0]


def test_a_leak_behind_files_that_the_kernel_takes_back_is_found() -> None:
    samples = [Sample(float(at), "agent", 7, _LEVEL, _LEVEL // 2 + 1000 * at, 19, 5, at) for at in range(_LOOKS)]
    assert found("agent", samples) == ["agent: its anonymous memory at rest moves by +3.4%"]


def test_files_that_the_kernel_takes_back_are_named() -> None:
    samples = [
        Sample(float(at), "agent", 7, _LEVEL - (at == 900) * 10**7, _LEVEL // 2, 19, 5, at) for at in range(_LOOKS)
    ]
    lines = list(conclusion(judge({"agent": samples})))
    assert any(line.endswith("the kernel took up to 10.0 MB of its files from memory") for line in lines)


def test_a_jump_that_the_line_averages_away_is_found() -> None:
    # Up for ten minutes in the middle of the last half, and down again.
    samples = hour("agent", lambda number: _LEVEL * (1.05 if 2400 <= number < 3000 else 1))
    assert "agent: its memory at rest wanders by 5.0%" in found("agent", samples)


def test_bursts_that_become_higher_are_found() -> None:
    samples = hour("agent", lambda number: _LEVEL * (1 + (number % 60 == 0) * (0.1 + 0.1 * (number > 1800))))
    assert found("agent", samples) == ["agent: its most memory grew by +9.1%"]


@pytest.mark.parametrize("since", [3000, 3601 - 20])
def test_a_descriptor_that_is_kept_is_found(since: int) -> None:
    samples = [look(number, descriptors=19 + (number >= since)) for number in range(_LOOKS)]
    assert found("agent", samples) == ["agent: its descriptors go from 19 to 20"]


def test_files_that_are_open_for_moments_are_no_leak() -> None:
    samples = [look(number, descriptors=19 + (3000 <= number < 3300 and number % 15 < 14)) for number in range(_LOOKS)]
    assert found("agent", samples) == []


def test_a_process_that_was_started_again_says_nothing() -> None:
    samples = [look(number, pid=7 if number < 100 else 8) for number in range(_LOOKS)]
    assert found("agent", samples) == ["agent: it was started again, its memory says nothing"]


@pytest.mark.parametrize(("begun", "ended", "parts"), [(0, 2700, 9), (3000, 3601, 2), (0, 0, 0)])
def test_a_worker_that_is_not_there_all_the_time_is_found(begun: int, ended: int, parts: int) -> None:
    samples = [look(number, "shapes-vision") for number in range(begun, ended)]
    assert found("shapes-vision", samples) == [f"shapes-vision: it was there in {parts} of 12 parts of the time"]


def test_a_process_that_is_not_expected_is_found() -> None:
    assert found("phi", hour("phi", lambda _: _LEVEL)) == ["phi: nobody knows it"]


def test_an_hour_in_which_nothing_was_answered_for_ten_minutes_is_no_proof() -> None:
    samples = [Sample(at, "agent", 7, _LEVEL, _LEVEL, 19, 5, min(at, 1200) + max(0, at - 1850)) for at in range(_LOOKS)]
    assert found("agent", samples) == ["nothing was answered in 2 of 12 parts of the time"]


def test_no_samples_are_no_proof() -> None:
    assert len(judge({}).faults) == len(AT_REST) + 1


def test_a_file_of_samples_is_judged_by_itself() -> None:
    rows = [astuple(look(number, process)) for number in range(_LOOKS) for process in AT_REST]
    names = ",".join(each.name for each in fields(Sample))
    file = StringIO("\n".join([names, *(",".join(map(str, row)) for row in rows)]))
    samples = read(file)
    assert samples["agent"][1] == look(1)
    assert len(list(table(samples))) == 2 + 4 * len(AT_REST)
    assert list(conclusion(judge(samples)))[-1] == "well: memory flat, descriptors constant"
