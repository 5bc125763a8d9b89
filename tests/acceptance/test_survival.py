"""Kill -9, restarts and drains, on everything real: each job ends in exactly one distinct final."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.boxes import EDGE_SLM, Box
from tests.brokers import Broker
from tests.devices import Device

MakeBox = Callable[..., Box]


def story(number: int, max_tokens: int = 40) -> dict[str, Any]:
    return {"id": f"j{number}", "prompt": f"Tell me story number {number}.", "max_tokens": max_tokens}


def distinct_finals(device: Device, count: int) -> list[set[str]]:
    return [{repr(sorted(body.items())) for body in device.of(f"j{number}", "final")} for number in range(count)]


def attempts_are_whole(device: Device, job_id: str) -> bool:
    """Whether the chunks heard of each attempt are numbered from 0 without a gap."""
    by_attempt: dict[int, list[int]] = {}
    for body in device.of(job_id, "chunk"):
        by_attempt.setdefault(body["attempt"], []).append(body["seq"])
    return all(seqs == list(range(len(seqs))) for seqs in by_attempt.values())


def ended(pid: int) -> "asyncio.Future[None]":
    """Return a future that is done when a process that is not our child has ended."""
    loop = asyncio.get_running_loop()
    done, descriptor = loop.create_future(), os.pidfd_open(pid)

    def settle() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        done.set_result(None)

    loop.add_reader(descriptor, settle)
    return done


# Each way to die is tried in one version of MQTT: in the other it costs half a minute and shows the same.
@pytest.mark.parametrize("version", ["3.1.1"])
async def test_the_agent_killed_amid_twenty_jobs_loses_none_and_changes_none(
    box: MakeBox, broker: Broker, version: str
) -> None:
    count = 20
    async with Device(broker.port, version=version, keep=True) as device, box() as running:
        for number in range(count):
            device.publish("text", story(number))
        for done in (1, 5, 9):
            await device.until(lambda done=done: sum(map(bool, distinct_finals(device, count))) >= done)  # type: ignore[misc]
            await running.kill()
            running.start()
        for number in range(count):
            await device.final(f"j{number}")
        assert [len(finals) for finals in distinct_finals(device, count)] == [1] * count
        assert {(await device.final(f"j{number}"))["state"] for number in range(count)} == {"SUCCEEDED"}
        assert all(attempts_are_whole(device, f"j{number}") for number in range(count))


@pytest.mark.parametrize("version", ["5"])
async def test_the_worker_killed_amid_twenty_jobs_loses_none(box: MakeBox, broker: Broker, version: str) -> None:
    count = 20
    async with Device(broker.port, version=version) as device, box() as running:
        for number in range(count):
            device.publish("text", story(number))
        await device.until(lambda: sum(map(bool, distinct_finals(device, count))) >= 3)
        os.kill(running.worker, signal.SIGKILL)
        for number in range(count):
            await device.final(f"j{number}")
        assert [len(finals) for finals in distinct_finals(device, count)] == [1] * count
        finals = [await device.final(f"j{number}") for number in range(count)]
        assert {final["state"] for final in finals} == {"SUCCEEDED"}
        assert {final["attempt"] for final in finals} == {1, 2}
        assert all(attempts_are_whole(device, f"j{number}") for number in range(count))


async def test_a_job_that_kills_its_worker_twice_is_internal_and_the_box_goes_on(box: MakeBox, broker: Broker) -> None:
    async with Device(broker.port) as device, box() as running:
        device.publish("text", story(0, max_tokens=2000))
        for attempt in (1, 2):
            await device.until(lambda attempt=attempt: any(b["attempt"] == attempt for b in device.of("j0", "chunk")))  # type: ignore[misc]
            os.kill(running.worker, signal.SIGKILL)
        final = await device.final("j0")
        assert (final["state"], final["error"]["code"], final["attempt"]) == ("FAILED", "internal", 2)
        device.publish("text", story(1))
        assert (await device.final("j1"))["state"] == "SUCCEEDED"


async def test_the_broker_killed_amid_jobs_gets_every_final(box: MakeBox, broker: Broker) -> None:
    count = 6
    async with Device(broker.port, keep=True) as device, box():
        sent = [device.publish("text", story(number)) for number in range(count)]
        await device.until(lambda: device.of("j0", "final") != [])
        assert all(each.is_published() for each in sent)
        broker.kill()
        broker.start()
        for number in range(count):
            await device.final(f"j{number}")
        assert [len(finals) for finals in distinct_finals(device, count)] == [1] * count


async def test_sigterm_lets_running_jobs_end_and_keeps_the_rest(box: MakeBox, broker: Broker) -> None:
    count = 4
    async with Device(broker.port, keep=True) as device, box(engine={"slots": 1}) as running:
        for number in range(count):
            device.publish("text", story(number))
        await device.until(lambda: device.of("j0", "chunk") != [])
        await device.state(f"j{count - 1}", "accepted")
        assert await running.stop() == 0
        await device.final("j0")
        kept = (await running.logged("service.drained"))["jobs_kept"]
        assert kept >= 1
        running.start()
        for number in range(count):
            await device.final(f"j{number}")
        assert [len(finals) for finals in distinct_finals(device, count)] == [1] * count


async def test_the_worker_does_not_outlive_the_agent(box: MakeBox, broker: Broker) -> None:
    async with Device(broker.port) as device, box() as running:
        device.publish("text", story(0, max_tokens=2000))
        await device.until(lambda: device.of("j0", "chunk") != [])
        gone = ended(running.worker)
        await running.kill()
        await gone


async def test_a_second_box_on_the_same_state_says_so_and_ends(box: MakeBox) -> None:
    async with box() as first:
        second = await asyncio.create_subprocess_exec(
            *(EDGE_SLM, "run", "--config", str(first.config)), stderr=asyncio.subprocess.PIPE
        )
        _, error = await second.communicate()
        assert (second.returncode, str(first.pid) in error.decode()) == (3, True)
