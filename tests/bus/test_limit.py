"""What is taken for the broker's largest packet."""

import pytest

from agent.bus.limit import PacketLimit

A, B = object(), object()


def end(limit: PacketLimit, times: int, oldest: object | None = A, size: int = 5000, now: float = 0) -> list[bool]:
    """End connections, as if each had begun like the last."""
    return [limit.ended(oldest, size, now, by_size=False) for _ in range(times)]


def test_one_delivery_that_ends_three_connections_is_too_large() -> None:
    limit = PacketLimit()
    assert (end(limit, 3), limit.most(0)) == ([False, False, True], 2500)


def test_it_is_sent_alone_on_the_third() -> None:
    limit = PacketLimit()
    end(limit, 1)
    first = limit.is_suspect(A)
    end(limit, 1)
    assert (first, limit.is_suspect(A), limit.is_suspect(B)) == (False, True, False)


def test_connections_that_end_upon_different_deliveries_say_nothing() -> None:
    limit = PacketLimit()
    for _ in range(3):
        end(limit, 2, A)
        end(limit, 2, B)
    assert limit.most(0) is None


def test_connections_that_end_with_nothing_under_way_say_nothing() -> None:
    limit = PacketLimit()
    end(limit, 9, None)
    assert limit.most(0) is None


def test_once_cut_it_needs_to_fail_but_once() -> None:
    limit = PacketLimit()
    end(limit, 3)
    assert (end(limit, 1, size=2500), limit.most(0)) == ([True], 1250)


def test_the_limit_is_never_less_than_the_box_needs_for_itself() -> None:
    limit = PacketLimit()
    end(limit, 3, size=44)
    assert limit.most(0) == 1024


def test_others_are_not_given_up_for_one_that_ends_connections() -> None:
    limit = PacketLimit()
    end(limit, 3)
    assert (limit.is_hopeless(B, 5000), limit.most(0)) == (False, 2500)


def test_a_broker_that_says_so_is_believed_at_once() -> None:
    limit = PacketLimit()
    assert (limit.ended(A, 5000, 0, by_size=True), limit.most(0)) == (True, 2500)


def test_the_smaller_of_what_is_said_and_learnt_holds() -> None:
    limit = PacketLimit()
    limit.connected(4000)
    said = limit.most(0)
    end(limit, 3)
    assert (said, limit.most(0)) == (4000, 2500)


def test_what_was_learnt_is_forgotten_after_an_hour() -> None:
    limit = PacketLimit()
    end(limit, 3, now=100)
    assert (limit.most(3700), limit.most(3701)) == (2500, None)


def test_what_is_no_larger_than_what_has_arrived_is_not_taken_for_too_large() -> None:
    limit = PacketLimit()
    limit.arrived(5000)
    assert (end(limit, 5), limit.most(0)) == ([False] * 5, None)


def test_a_limit_that_was_lowered_is_found_in_time() -> None:
    limit = PacketLimit()
    limit.arrived(5000)
    assert (end(limit, 6)[-1], limit.most(0)) == (True, 2500)


def test_what_has_arrived_is_not_cut_for_what_has_not() -> None:
    limit = PacketLimit()
    limit.arrived(4000)
    end(limit, 3)
    assert limit.most(0) == 4000


def test_ends_with_another_between_them_are_not_in_a_row() -> None:
    limit = PacketLimit()
    end(limit, 2)
    limit.ended_innocently()
    assert end(limit, 2) == [False, False]


def test_one_that_cannot_be_cut_takes_back_nothing_but_what_it_taught() -> None:
    limit = PacketLimit()
    end(limit, 3, A, size=5000)
    end(limit, 3, B, size=9000)
    assert (limit.is_hopeless(B, 9000), limit.most(0)) == (True, 2500)


@pytest.mark.parametrize(("size", "hopeless", "most"), [(4999, False, 2500), (5000, True, None)])
def test_what_ended_a_connection_as_short_as_it_gets_teaches_nothing(
    size: int, hopeless: bool, most: int | None
) -> None:
    limit = PacketLimit()
    end(limit, 3)
    assert (limit.is_hopeless(A, size), limit.most(0)) == (hopeless, most)
