"""What the soak says of samples: a leak of three percent in the last half is one, noise is none."""

from random import Random

from tests.soak.verdict import Sample, judge

# An hour, every second.
_LOOKS = 3601
_LEVEL = 100_000_000


def look(number: int, resident: float = _LEVEL, descriptors: int = 19, pid: int = 7) -> Sample:
    return Sample(float(number), "agent", pid, round(resident), 0, descriptors, 5)


def test_memory_and_descriptors_that_stay_are_well() -> None:
    assert judge([look(number) for number in range(_LOOKS)]).faults == ()


def test_noise_is_no_leak() -> None:
    random = Random(1)
    assert judge([look(number, _LEVEL * random.uniform(0.7, 1.0)) for number in range(_LOOKS)]).faults == ()


def test_what_grows_before_the_last_half_is_warming_up() -> None:
    assert judge([look(number, _LEVEL * min(1.0, 0.5 + number / _LOOKS)) for number in range(_LOOKS)]).faults == ()


def test_a_leak_of_more_than_three_percent_in_the_last_half_is_found_under_noise() -> None:
    random = Random(1)
    leak = 0.035 / (_LOOKS / 2)
    samples = [look(number, _LEVEL * (1 + leak * number + random.uniform(-0.3, 0))) for number in range(_LOOKS)]
    assert "its memory moves by +3." in judge(samples).faults[0]


def test_a_jump_that_the_line_averages_away_is_found() -> None:
    # Up for ten minutes in the middle of the last half, and down again.
    samples = [look(number, _LEVEL * (1.05 if 2400 <= number < 3000 else 1)) for number in range(_LOOKS)]
    assert judge(samples).faults == ("its memory wanders by 5.0%",)


def test_a_descriptor_that_is_kept_is_found() -> None:
    samples = [look(number, descriptors=19 + (number >= 3000)) for number in range(_LOOKS)]
    assert judge(samples).faults == ("its descriptors go from 19 to 20",)


def test_a_file_that_is_open_for_a_moment_is_no_leak() -> None:
    assert judge([look(number, descriptors=19 + (number == 3000)) for number in range(_LOOKS)]).faults == ()


def test_a_process_that_was_started_again_says_nothing() -> None:
    samples = [look(number, pid=7 if number < 100 else 8) for number in range(_LOOKS)]
    assert judge(samples).faults == ("it was started again, so that its memory says nothing",)


def test_no_samples_are_no_proof() -> None:
    assert judge([]).faults == ("too few samples",)
