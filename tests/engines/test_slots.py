import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.worker.slots import ALIGN, Choice, Held, Pace, choose, slice_end

SYSTEM = list(range(800))
QUESTION = [*range(2000, 2050)]


def held(
    tokens: list[int], *, capacity: int = 1024, exact: int | None = None, long: bool = False, used: int = 1
) -> Held:
    return Held(capacity, tokens, len(tokens) if exact is None else exact, long, used)


def chosen(
    prompt: list[int], *idle: Held, need: int = 1000, exact: bool = False, long: bool = False, count: int = 2
) -> Choice:
    return choose(prompt, need, idle, exact=exact, long=long, count=count)


def test_a_job_goes_where_its_system_prompt_is() -> None:
    assert chosen(SYSTEM + QUESTION, Held(), held([*SYSTEM, 1, 2, 3])) == (1, 800)


def test_a_job_with_little_in_common_spares_a_long_prefix() -> None:
    assert chosen(SYSTEM[:20] + QUESTION, held(SYSTEM), Held()) == (1, None)


def test_without_an_empty_slot_the_cache_that_was_unused_longest_goes() -> None:
    old, new = held([*range(5000, 5500)], used=1), held([*range(6000, 6100)], used=99)

    assert chosen(QUESTION, new, old, count=100).slot == 1


def test_a_cache_without_room_is_replaced_by_a_new_one() -> None:
    assert chosen(SYSTEM + QUESTION, Held(), held(SYSTEM, capacity=810)) == (1, None)


def test_at_least_two_tokens_are_computed_when_the_whole_prompt_is_there() -> None:
    _, keep = chosen(SYSTEM, held(SYSTEM))

    assert keep == 792


def test_a_job_that_must_repeat_exactly_keeps_only_exact_tokens() -> None:
    slot = held(SYSTEM, exact=404)

    assert chosen(SYSTEM, slot, exact=True) == (0, 400)
    assert chosen(SYSTEM, slot, exact=False) == (0, 792)


@pytest.mark.parametrize("long", [False, True])
def test_a_cache_that_was_filled_under_other_rotary_factors_is_of_no_use(*, long: bool) -> None:
    assert chosen(SYSTEM, held(SYSTEM, long=not long), long=long) == (0, None)


def test_a_long_job_goes_where_its_prefix_was_computed_under_its_own_rotary_factors() -> None:
    short, long = held(SYSTEM), held(SYSTEM[:400], long=True)

    assert chosen(SYSTEM + QUESTION, short, long, long=True) == (1, 400)


@given(st.integers(1, 600), st.integers(16, 512), st.integers(0, 74))
def test_slices_cover_the_prompt_at_multiples_and_none_has_one_token(prompt: int, size: int, kept: int) -> None:
    position = max(min(kept * ALIGN, prompt - 2), 0) // ALIGN * ALIGN
    while position < prompt:
        end = slice_end(position, prompt, size)
        assert position < end <= prompt
        assert end == prompt or end % ALIGN == 0
        assert end - position > 1 or prompt == 1
        assert end - position <= size + max(size // 2, 1)
        position = end


@pytest.mark.parametrize(("rate", "size"), [(1, 16), (330, 32), (1_000, 96), (1_000_000, 512)])
def test_slices_take_a_tenth_of_a_second_within_bounds(rate: float, size: int) -> None:
    pace = Pace(slice_s=0.1)
    pace.saw(64, 64 / rate)

    assert pace.size(alone=False) == size


def test_a_job_alone_gets_longer_slices() -> None:
    pace = Pace(slice_s=0.1)
    pace.saw(64, 0.1)
    assert (pace.size(alone=False), pace.size(alone=True)) == (64, 96)


def test_a_short_rest_goes_with_the_last_slice() -> None:
    assert [slice_end(position, 148, 64) for position in (0, 64)] == [64, 148]


def test_a_short_last_slice_does_not_count() -> None:
    pace = Pace()
    pace.saw(3, 1.0)

    assert pace.size(alone=False) == 16
    pace.saw(64, 0.1)
    assert pace.size(alone=False) == 64
