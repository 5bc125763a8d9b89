"""The door to the disk: one frame of a camera at a time, and of those that wait the newest."""

import asyncio

from agent.latest import LatestOnly


async def test_the_first_goes_in_at_once() -> None:
    assert await LatestOnly().enter("porch")


async def test_another_camera_does_not_wait() -> None:
    door = LatestOnly()
    await door.enter("porch")
    assert await door.enter("attic")


async def test_of_those_that_wait_the_newest_goes_in_and_the_others_are_sent_away_at_once() -> None:
    door = LatestOnly()
    await door.enter("porch")
    waiting = [asyncio.create_task(door.enter("porch")) for _ in range(3)]
    assert [await each for each in waiting[:2]] == [False, False]
    assert not waiting[2].done()
    door.leave("porch")
    assert await waiting[2]


async def test_one_that_gave_up_waiting_lets_the_next_in() -> None:
    door = LatestOnly()
    await door.enter("porch")
    waiting = asyncio.create_task(door.enter("porch"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    door.leave("porch")
    assert await door.enter("porch")


async def test_after_the_last_nothing_is_remembered() -> None:
    door = LatestOnly()
    await door.enter("porch")
    door.leave("porch")
    assert repr(door) == "<LatestOnly 0 inside>"
