from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.forecast.lengths import Length, Lengths


def lengths(*tokens: int, cut: int | None = None) -> Lengths:
    known = Lengths()
    for each in tokens:
        known.add(each, cut=each == cut)
    return known


@given(st.lists(st.integers(1, 300), min_size=1, max_size=32), st.integers(1, 400))
def test_an_answer_will_be_as_long_as_those_before_it_were_on_average(tokens: list[int], most: int) -> None:
    assert lengths(*tokens).expected(0, most) == pytest.approx(mean(min(each, most) for each in tokens))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=32), st.integers(0, 300))
def test_one_that_has_begun_will_be_as_those_were_that_came_as_far(tokens: list[int], have: int) -> None:
    longer = [each for each in tokens if each > have]
    length = lengths(*tokens).expected(have, 1000)

    assert length == (pytest.approx(mean(longer)) if longer else None)


@pytest.mark.parametrize("most", [10, 16, 100])
def test_answers_that_were_all_cut_short_say_nothing_of_longer_ones(most: int) -> None:
    assert lengths(16, 16, 16, cut=16).expected(0, most) == min(most, 16)


def test_answers_that_were_cut_short_say_that_there_is_more_to_come_if_longer_ones_came() -> None:
    assert lengths(10, 16, 16, 16, 50, 50, cut=16).expected(0, 100) == pytest.approx(10 + 5 / 6 * 40)


def test_one_that_is_longer_than_it_may_be_ends_now() -> None:
    assert lengths(10, 50, 60).expected(30, 20) == 30


def test_an_answer_that_was_cut_short_says_nothing_of_what_would_have_come() -> None:
    assert lengths(40, 40, 16, 16, cut=16).expected(0, 100) == pytest.approx(40)


@given(
    st.lists(st.builds(Length, st.integers(1, 300), st.booleans()), min_size=1, max_size=40),
    st.integers(0, 300),
    st.integers(1, 300),
)
def test_an_answer_will_be_longer_than_it_is_and_no_longer_than_it_may_be(
    known: list[Length], have: int, more: int
) -> None:
    length = Lengths(known).expected(have, have + more)

    assert length is None or have < length <= have + more + 1e-9


def test_what_is_remembered_is_the_last_answers() -> None:
    known = Lengths(Length(5, cut=False) for _ in range(100))
    for _ in range(32):
        known.add(50, cut=False)

    assert known.expected(0, 100) == 50
    assert len(known.last) == 32
