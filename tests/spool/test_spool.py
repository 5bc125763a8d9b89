import asyncio

from agent.contract.jobs import Key
from agent.spool import Receipt, Spool
from tests.spool.samples import final, job, key, unsent


async def test_a_first_request_is_new(spool: Spool) -> None:
    assert await spool.accept(job("a"), 1.0) is Receipt.NEW
    assert spool.unfinished == 1


async def test_a_repeat_of_a_running_request_changes_nothing(spool: Spool) -> None:
    await spool.accept(job("a", "first"), 1.0)
    assert await spool.accept(job("a", "second"), 2.0) is Receipt.RUNNING
    (only,) = await spool.recover()
    assert only.job == job("a", "first")
    assert only.received_at == 1.0


async def test_the_same_id_of_another_client_is_another_job(spool: Spool) -> None:
    await spool.accept(job("a"), 1.0)
    assert await spool.accept(job("a").model_copy(update={"client": "gate"}), 1.0) is Receipt.NEW


async def test_a_final_takes_its_requests_place_and_waits_to_be_sent(spool: Spool) -> None:
    await spool.accept(job("a"), 1.0)
    assert await spool.finish(final("a", b"answer")) is True
    assert (spool.unfinished, spool.unsent) == (0, 1)
    (waiting,) = await spool.outgoing(0, 10)
    stored = final("a", b"answer")
    assert (waiting.key, waiting.payload, waiting.topic, waiting.correlation) == (
        stored.key,
        stored.payload,
        stored.topic,
        stored.correlation,
    )


async def test_a_stored_final_is_never_changed(spool: Spool) -> None:
    await spool.finish(final("a", b"first"))
    assert await spool.finish(final("a", b"second")) is False
    assert await unsent(spool) == [("a", b"first")]


async def test_of_finishes_at_the_same_time_exactly_one_is_stored(spool: Spool) -> None:
    await spool.accept(job("a"), 1.0)
    stored = await asyncio.gather(*(spool.finish(final("a", bytes([n]))) for n in range(50)))
    assert sorted(stored) == [False] * 49 + [True]
    assert await unsent(spool) == [("a", bytes([stored.index(True)]))]


async def test_a_repeat_of_a_finished_request_gets_the_stored_final_again(spool: Spool) -> None:
    await spool.finish(final("a", b"answer"))
    (first,) = await spool.outgoing(0, 10)
    await spool.sent([first.seq])
    assert await spool.accept(job("a"), 2.0) is Receipt.FINISHED
    (again,) = await spool.outgoing(first.seq, 10)
    assert again.payload == b"answer"
    assert spool.unfinished == 0


async def test_a_repeat_whose_final_still_waits_is_not_sent_twice(spool: Spool) -> None:
    await spool.finish(final("a"))
    assert await spool.accept(job("a"), 2.0) is Receipt.FINISHED
    assert spool.unsent == len(await spool.outgoing(0, 10)) == 1


async def test_finals_go_out_in_the_order_they_were_stored(spool: Spool) -> None:
    for job_id in ("c", "a", "b"):
        await spool.finish(final(job_id))
    assert [job_id for job_id, _ in await unsent(spool)] == ["c", "a", "b"]


async def test_outgoing_goes_on_after_the_last_row_taken(spool: Spool) -> None:
    for job_id in "abc":
        await spool.finish(final(job_id))
    first, second = await spool.outgoing(0, 2)
    (third,) = await spool.outgoing(second.seq, 2)
    assert [row.key.id for row in (first, second, third)] == ["a", "b", "c"]


async def test_a_row_added_to_an_empty_outbox_is_after_all_earlier_ones(spool: Spool) -> None:
    await spool.finish(final("a"))
    (gone,) = await spool.outgoing(0, 1)
    await spool.sent([gone.seq])
    await spool.finish(final("b"))
    assert [row.key.id for row in await spool.outgoing(gone.seq, 1)] == ["b"]


async def test_refusing_an_unknown_request_stores_its_final(spool: Spool) -> None:
    assert await spool.refuse(final("a", b"no")) is Receipt.NEW
    assert await unsent(spool) == [("a", b"no")]


async def test_refusing_a_running_request_leaves_it_running(spool: Spool) -> None:
    await spool.accept(job("a"), 1.0)
    assert await spool.refuse(final("a", b"no")) is Receipt.RUNNING
    assert (spool.unfinished, spool.unsent) == (1, 0)


async def test_refusing_a_finished_request_sends_its_own_final_again(spool: Spool) -> None:
    await spool.finish(final("a", b"answer"))
    await spool.sent([row.seq for row in await spool.outgoing(0, 1)])
    assert await spool.refuse(final("a", b"no")) is Receipt.FINISHED
    assert await unsent(spool) == [("a", b"answer")]


async def test_a_cancel_of_a_finished_request_sends_its_final_again(spool: Spool) -> None:
    await spool.finish(final("a", b"answer"))
    await spool.sent([row.seq for row in await spool.outgoing(0, 1)])
    assert await spool.cancel(key("a")) is Receipt.FINISHED
    assert await unsent(spool) == [("a", b"answer")]


async def test_a_cancel_of_an_unknown_request_leaves_no_trace(spool: Spool) -> None:
    assert await spool.cancel(key("a")) is Receipt.NEW
    assert await spool.accept(job("a"), 1.0) is Receipt.NEW


async def test_expiry_drops_finals_older_than_the_time_given(spool: Spool) -> None:
    # More than one operation's worth.
    await asyncio.gather(*(spool.finish(final(f"old{n}", finished_at=10)) for n in range(600)))
    await spool.finish(final("young", finished_at=20))
    await spool.sent([row.seq for row in await spool.outgoing(0, 1000)])
    assert await spool.expire(20) == 600
    assert await spool.cancel(key("old7")) is Receipt.NEW
    assert await spool.cancel(key("young")) is Receipt.FINISHED


async def test_expiry_keeps_what_the_broker_does_not_have(spool: Spool) -> None:
    await spool.finish(final("a", finished_at=10))
    assert await spool.expire(20) == 0
    assert await unsent(spool) == [("a", b"{}")]


async def test_an_unfinished_job_comes_back_as_it_was_accepted(spool: Spool) -> None:
    await spool.accept(job("a"), 17.5)
    (only,) = await spool.recover()
    assert (only.key, only.job, only.received_at, only.canceled) == (Key("porch", "a"), job("a"), 17.5, False)
