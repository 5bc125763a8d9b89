"""From when on jobs should go elsewhere, and until when: two marks each, and one word for why."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.admission import Saturation, Signals

MIB = 1 << 20
WELL = Signals(wait_s=0.0, available_bytes=999 * MIB, memory_pressure=0.0, temperature_c=40.0, throttled=False)

# Of each signal: the word, what is just well, what lies between the marks, what is just too much.
MARKS: dict[str, tuple[str, Any, Any, Any]] = {
    "wait_s": ("wait", 15.0, 20.0, 30.0),
    "full": ("queue", 0.5, 0.6, 0.75),
    "available_bytes": ("memory", 288 * MIB, 270 * MIB, 256 * MIB),
    "memory_pressure": ("memory", 10.0, 15.0, 20.0),
    "temperature_c": ("heat", 80.0, 83.0, 85.0),
}
each_mark = pytest.mark.parametrize("signal", MARKS)


def saturation() -> Saturation:
    return Saturation(wait_s=30, available_bytes=256 * MIB, memory_pressure=20, temperature_c=85)


def words(signal: str, *values: Any) -> list[str | None]:
    """Return what is said as one signal takes these values, while all others are well."""
    states = saturation()
    return [states.update(replace(WELL, **{signal: value})) for value in values]


def test_a_box_that_is_well_and_idle_is_not_saturated() -> None:
    assert saturation().update(WELL) is None


def test_what_the_kernel_does_not_tell_is_no_reason() -> None:
    assert saturation().update(Signals()) is None


@each_mark
def test_it_begins_at_the_high_mark(signal: str) -> None:
    word, _, between, high = MARKS[signal]
    assert words(signal, between, high) == [None, word]


@each_mark
def test_it_ends_at_the_low_mark(signal: str) -> None:
    word, low, between, high = MARKS[signal]
    assert words(signal, high, between, low) == [word, word, None]


@pytest.mark.parametrize("signal", sorted({*MARKS} - {"full"}))
def test_it_ends_where_a_signal_falls_silent(signal: str) -> None:
    assert words(signal, MARKS[signal][3], None)[-1] is None


@pytest.mark.parametrize(("signal", "bad", "word"), [("throttled", True, "heat"), ("healthy", False, "model")])
def test_what_is_yes_or_no_counts_for_as_long_as_it_is_so(signal: str, bad: bool, word: str) -> None:
    assert words(signal, bad, not bad) == [word, None]


def test_the_heat_goes_on_while_either_of_its_signs_does() -> None:
    states = saturation()
    states.update(replace(WELL, temperature_c=90.0, throttled=True))
    assert states.update(replace(WELL, temperature_c=70.0, throttled=True)) == "heat"
    assert states.update(replace(WELL, temperature_c=70.0)) is None


def test_of_several_reasons_the_gravest_is_told() -> None:
    states, signals = saturation(), WELL
    told = []
    for name in ("wait_s", "full", "temperature_c", "memory_pressure"):
        signals = replace(signals, **{name: MARKS[name][3]})
        told.append(states.update(signals))
    assert [*told, states.update(replace(signals, healthy=False))] == ["wait", "queue", "heat", "memory", "model"]


def test_it_shows_its_word() -> None:
    states = saturation()
    states.update(replace(WELL, full=1.0))
    assert repr(states) == "<Saturation queue>"


def between(signal: str) -> st.SearchStrategy[Any]:
    low, high = sorted(MARKS[signal][1::2])
    return st.floats(low, high, exclude_min=True, exclude_max=True)


@given(
    st.fixed_dictionaries({name: st.booleans() for name in MARKS}),
    st.lists(st.fixed_dictionaries({name: between(name) for name in MARKS}), min_size=1),
)
def test_between_the_marks_nothing_changes(passed: dict[str, bool], then: list[dict[str, Any]]) -> None:
    states = saturation()
    word = states.update(replace(WELL, **{name: MARKS[name][3] for name in MARKS if passed[name]}))
    assert {states.update(replace(WELL, **values)) for values in then} == {word}
