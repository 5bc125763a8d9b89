import asyncio
from threading import Thread

from agent.bus.handover import Handover


def _fail(error: Exception) -> None:
    raise AssertionError from error


def _defect() -> None:
    raise ZeroDivisionError


async def test_calls_of_another_thread_run_in_order_on_the_loop() -> None:
    handover = Handover(asyncio.get_running_loop(), _fail)
    seen: list[int] = []
    last = asyncio.Event()

    def post() -> None:
        for number in range(1000):
            handover.post(lambda number=number: seen.append(number))  # type: ignore[misc]
        handover.post(last.set)

    thread = Thread(target=post)
    thread.start()
    await last.wait()
    thread.join()

    assert seen == list(range(1000))


async def test_an_exception_is_told_and_the_next_call_still_runs() -> None:
    failures: list[Exception] = []
    handover = Handover(asyncio.get_running_loop(), failures.append)
    ran = asyncio.Event()
    handover.post(_defect)
    handover.post(ran.set)
    await ran.wait()

    assert [type(each) for each in failures] == [ZeroDivisionError]


async def test_a_long_queue_leaves_the_loop_its_turns() -> None:
    handover = Handover(asyncio.get_running_loop(), _fail)
    spins = 0

    def work() -> None:
        sum(range(20_000))

    for _ in range(500):
        handover.post(work)
    last = asyncio.Event()
    handover.post(last.set)
    while not last.is_set():
        spins += 1
        await asyncio.sleep(0)

    assert spins > 5


def test_a_post_after_the_loops_end_is_dropped() -> None:
    loop = asyncio.new_event_loop()
    handover = Handover(loop, _fail)
    loop.close()

    handover.post(lambda: None)
