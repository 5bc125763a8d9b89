"""The client-side rate limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.cloud.limiter import Limiter


def test_as_many_as_are_allowed_in_a_minute_go_at_once() -> None:
    limiter = Limiter(3)
    assert [limiter.take(0.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_one_more_is_told_when_the_first_one_is_a_minute_ago() -> None:
    limiter = Limiter(2)
    limiter.take(0.0)
    limiter.take(20.0)
    assert limiter.take(21.0) == 40.0
    assert limiter.take(61.0) == 0.0
    assert limiter.take(61.0) == 20.0


def test_what_would_wait_is_known_before_it_asks() -> None:
    limiter = Limiter(1)
    assert limiter.delay_s(0.0) == 0.0
    limiter.take(0.0)
    assert limiter.delay_s(1.0) == 60.0


def test_who_gives_up_waiting_has_taken_nothing_from_the_others() -> None:
    limiter = Limiter(1)
    limiter.take(0.0)
    for _ in range(5):
        limiter.take(1.0)
    assert limiter.take(61.0) == 0.0


@given(st.integers(1, 4), st.lists(st.floats(0, 50), max_size=40))
def test_no_minute_ever_has_more(most: int, pauses: list[float]) -> None:
    limiter, now = Limiter(most), 0.0
    sent: list[float] = []
    for pause in pauses:
        now += pause
        if limiter.take(now) == 0.0:
            sent.append(now)
    assert all(late - early >= 60 for early, late in zip(sent, sent[most:], strict=False))


@given(st.integers(1, 4), st.lists(st.floats(0, 50), max_size=40))
def test_who_asks_again_when_told_goes(most: int, pauses: list[float]) -> None:
    limiter, now = Limiter(most), 0.0
    for pause in pauses:
        now += pause
        while (wait_s := limiter.take(now)) > 0:
            now += wait_s
            assert limiter.delay_s(now) < 1e-9


def used(most: int, pauses: list[float]) -> tuple[Limiter, float]:
    """Return a limiter that was asked again and again with pauses between, and what time it is then."""
    limiter, now = Limiter(most), 0.0
    for pause in pauses:
        now += pause
        limiter.take(now)
    return limiter, now


@given(st.integers(1, 4), st.lists(st.floats(0, 50), max_size=12), st.integers(0, 12))
def test_who_stands_in_line_is_told_exactly_when_it_goes(most: int, pauses: list[float], ahead: int) -> None:
    limiter, began = used(most, pauses)
    told_s = limiter.delay_s(began, ahead)
    now = began
    for _ in range(ahead + 1):
        while (wait_s := limiter.take(now)) > 0:
            now += wait_s
    assert told_s == pytest.approx(now - began, abs=1e-6)


@given(st.integers(1, 4), st.lists(st.floats(0, 50), max_size=12))
def test_who_has_more_ahead_never_waits_less(most: int, pauses: list[float]) -> None:
    limiter, now = used(most, pauses)
    told = [limiter.delay_s(now, ahead) for ahead in range(12)]
    assert told == sorted(told)


def test_it_shows_how_far_it_is_used() -> None:
    limiter = Limiter(2)
    limiter.take(0.0)
    assert repr(limiter) == "<Limiter 1 of 2 sent in the last minute>"
