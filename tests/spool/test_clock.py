"""The wall clock is set, forward or back: nothing that is stored becomes older or younger by it."""

from pathlib import Path

import pytest

from agent.spool import Spool, SpoolError
from tests.spool.samples import final, job

DAY = 86_400.0


@pytest.mark.parametrize("by_s", [DAY, -DAY, 30.0, -30.0])
async def test_what_was_stamped_before_moves_along(spool: Spool, by_s: float) -> None:
    await spool.accept(job("a"), 1000.0)
    await spool.clock_jumped(by_s, 2000.0 + by_s)
    assert [each.received_at for each in await spool.recover()] == [1000.0 + by_s]


@pytest.mark.parametrize("by_s", [DAY, -DAY])
async def test_what_was_stamped_since_stays(spool: Spool, by_s: float) -> None:
    now = 200_000.0 + by_s
    await spool.accept(job("a"), now - 3.0)
    await spool.clock_jumped(by_s, now)
    assert [each.received_at for each in await spool.recover()] == [now - 3.0]


@pytest.mark.parametrize("by_s", [DAY, -DAY])
async def test_a_final_is_kept_for_as_long_as_it_would_have_been(spool: Spool, by_s: float) -> None:
    await spool.finish(final("a", finished_at=200_000.0))
    await spool.sent([1])
    await spool.clock_jumped(by_s, 200_100.0 + by_s)
    assert await spool.expire(200_000.0 + by_s) == 0
    assert await spool.expire(200_001.0 + by_s) == 1


async def test_what_an_earlier_run_stamped_with_the_right_clock_is_not_moved_into_the_future(
    spool: Spool, path: Path
) -> None:
    years = 56 * 365 * DAY
    await spool.finish(final("a", finished_at=years))
    await spool.sent([1])
    await spool.accept(job("b"), years)
    await spool.close()
    # The box starts in 1970, and is told the time two days after those stamps.
    again = await Spool.open(path)
    now = years + 2 * DAY
    await again.clock_jumped(years, now)
    assert [each.received_at for each in await again.recover()] == [now]
    assert await again.expire(now) == 0
    assert await again.expire(now + 1.0) == 1
    await again.close()


async def test_what_comes_after_the_jump_has_its_own_stamp(spool: Spool) -> None:
    await spool.clock_jumped(DAY, 2000.0 + DAY)
    await spool.accept(job("a"), 2001.0 + DAY)
    assert [each.received_at for each in await spool.recover()] == [2001.0 + DAY]


async def test_jumps_survive_and_add_up(spool: Spool, path: Path) -> None:
    await spool.accept(job("a"), 1000.0)
    await spool.clock_jumped(DAY, 2000.0 + DAY)
    await spool.close()
    again = await Spool.open(path)
    await again.clock_jumped(-DAY / 2, 2100.0 + DAY / 2)
    assert [each.received_at for each in await again.recover()] == [1000.0 + DAY / 2]
    await again.close()


async def test_a_jump_that_could_not_be_stored_has_not_happened(spool: Spool) -> None:
    await spool.accept(job("a"), 1000.0)
    trigger = "CREATE TRIGGER no UPDATE ON clock BEGIN SELECT raise(ABORT, ''); END"
    await spool._do(lambda database: database._execute(trigger))
    with pytest.raises(SpoolError, match="cannot be used"):
        await spool.clock_jumped(DAY, 2000.0 + DAY)
    assert [each.received_at for each in await spool.recover()] == [1000.0]
