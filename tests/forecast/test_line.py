from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.forecast.line import Line

# Seconds, from the fastest box to the slowest.
rates = st.floats(1e-5, 1)
fixed_costs = st.sampled_from([0.0, 0.3, 3.0])
# In tokens. As they come, and not as a search for the worst would order them.
prompts = st.builds(lambda seed: Random(seed).choices([30, 60, 150, 400, 1500], k=40), st.integers())


def learn(line: Line, fixed: float, rate: float, tokens: list[int]) -> None:
    for each in tokens:
        line.saw((1.0, each), fixed + rate * each)


@given(fixed_costs, rates, prompts)
def test_it_comes_to_what_its_measurements_follow(fixed: float, rate: float, tokens: list[int]) -> None:
    line = Line((50.0, 1.0))
    learn(line, fixed, rate, tokens)

    for each in tokens:
        assert abs(line.at((1.0, each)) / (fixed + rate * each) - 1) < 0.05


@given(rates, st.sampled_from([0.2, 0.5, 0.7, 1.4, 2.0, 5.0]), prompts)
def test_it_follows_a_change_of_rates_within_ten_measurements(rate: float, change: float, tokens: list[int]) -> None:
    line = Line((50.0, 1.0))
    learn(line, 0.0, rate, tokens)
    learn(line, 0.0, rate * change, tokens[:10])

    assert abs(line.at((1.0, 500)) / (500 * rate * change) - 1) < 0.2


@given(rates, st.sampled_from([0.01, 10.0, 1000.0]), prompts)
def test_one_odd_measurement_does_not_spoil_it(rate: float, odd: float, tokens: list[int]) -> None:
    line = Line((50.0, 1.0))
    learn(line, 0.0, rate, tokens)
    line.saw((1.0, 500), 500 * rate * odd)

    assert abs(line.at((1.0, 500)) / (500 * rate) - 1) < 0.3


@given(rates, st.integers(10, 50), st.integers(30, 200))
def test_what_was_not_seen_for_long_is_not_forgotten(rate: float, tokens: int, times: int) -> None:
    line = Line((50.0, 1.0))
    learn(line, 0.0, rate, [10, 1000, 300, 2000, 50, 700])
    learn(line, 0.0, rate, [tokens] * times)

    assert abs(line.at((1.0, 2000)) / (2000 * rate) - 1) < 0.05


@pytest.mark.parametrize("change", [0.2, 1.0, 5.0])
def test_where_all_rates_change_together_one_measurement_is_enough(change: float) -> None:
    line = Line((50.0, 1.0))
    learn(line, 0.5, 0.01, [10, 1000, 300, 2000, 50, 700])
    before = [line.at((1.0, each)) for each in (10, 500, 3000)]
    line.scale((1.0, 60), change * line.at((1.0, 60)), 5.0)

    assert [line.at((1.0, each)) for each in (10, 500, 3000)] == pytest.approx([change * each for each in before])


def test_a_change_of_what_is_not_known_is_a_first_measurement() -> None:
    line = Line((50.0, 1.0))
    line.scale((1.0, 500), 4.0, 5.0)

    assert line.at((1.0, 500)) == pytest.approx(4.0, rel=0.01)


def test_of_a_change_that_is_too_large_a_bounded_part_is_believed() -> None:
    line = Line((50.0, 1.0))
    learn(line, 0.0, 1.0, [10, 1000])
    before = line.at((1.0, 500))
    line.scale((1.0, 500), 1000 * before, 5.0)

    assert line.at((1.0, 500)) == pytest.approx(5 * before)


def test_after_a_change_it_learns_as_fast_as_before() -> None:
    line, other = Line((50.0, 1.0)), Line((50.0, 1.0))
    learn(line, 0.0, 0.01, [10, 1000, 300, 2000])
    learn(other, 0.0, 0.04, [10, 1000, 300, 2000])
    line.scale((1.0, 500), 4 * line.at((1.0, 500)), 5.0)
    for each in (line, other):
        learn(each, 0.0, 0.05, [500])

    assert line.at((1.0, 500)) == pytest.approx(other.at((1.0, 500)))


@given(st.lists(st.tuples(st.floats(), st.floats(), st.floats(), st.booleans()), max_size=40))
def test_whatever_is_measured_it_predicts_a_number_that_is_not_negative(
    measurements: list[tuple[float, float, float, bool]],
) -> None:
    line = Line((50.0, 1.0))
    for first, second, y, together in measurements:
        if together:
            line.scale((first, second), y, 5.0)
        else:
            line.saw((first, second), y)

    assert 0 <= line.at((1.0, 500)) < float("inf")


@given(fixed_costs, rates, prompts)
def test_one_that_starts_from_anothers_coefficients_predicts_the_same_and_learns_on(
    fixed: float, rate: float, tokens: list[int]
) -> None:
    line = Line((50.0, 1.0))
    learn(line, fixed, rate, tokens)
    other = Line((50.0, 1.0), line.coefficients)

    assert abs(other.at((1.0, 500)) / line.at((1.0, 500)) - 1) < 1e-9
    learn(other, 0.0, rate / 2, [500] * 10)
    assert abs(other.at((1.0, 500)) / (250 * rate) - 1) < 0.15


@given(rates)
def test_it_knows_nothing_before_the_first_measurement_and_that_one_after_it(y: float) -> None:
    line = Line((50.0, 1.0))
    assert not line.known
    line.saw((1.0, 100), y)

    assert line.known
    assert abs(line.at((1.0, 100)) / y - 1) < 0.01
