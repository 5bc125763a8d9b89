from hypothesis import given
from hypothesis import strategies as st

from agent.bus.acks import AckOrder


def test_an_ack_waits_for_those_of_earlier_messages() -> None:
    order = AckOrder()
    order.received(7)
    second = order.received(9)

    assert order.done(second) == []


def test_an_ack_releases_the_later_ones_that_wait_for_it() -> None:
    order = AckOrder()
    first, second = order.received(7), order.received(9)
    order.done(second)

    assert order.done(first) == [7, 9]


def test_a_packet_identifier_that_comes_again_is_another_message() -> None:
    order = AckOrder()
    first = order.received(7)
    order.received(8)
    again = order.received(7)
    order.done(first)

    assert order.done(again) == []


@given(st.permutations(range(8)))
def test_acks_leave_in_the_order_of_receipt_whatever_is_done_first(done_in: list[int]) -> None:
    order = AckOrder()
    receipts = [order.received(mid) for mid in range(8)]

    released = [mid for index in done_in for mid in order.done(receipts[index])]

    assert released == list(range(8))
