"""An inference process that hangs, leaks, crashes or cannot load its model, under a real agent with a real model."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.boxes import Box
from tests.brokers import Broker
from tests.devices import Device

MakeBox = Callable[..., Box]

_CHANGED = """
import sys
from agent.cli import main
from agent.engines import growth, local
from agent.engines.watchdog import Patience
{change}
main()
"""
_SICK = 'local._COMMAND = (sys.executable, "-m", "tests.acceptance.sick_worker")'
# What the agent ships with takes ten seconds to show; tests of the decisions hold it.
_REPLACED_SOON = "growth._LIFE = 1"
_IMPATIENT = 'local.LocalEngine.__init__.__kwdefaults__["patience"] = Patience(least_s=3)'


class ChangedBox(Box):
    """A box whose agent is changed by lines of Python before it runs."""

    def __init__(self, *change: str, directory: Path, port: int, model: Path, **settings: Any) -> None:
        super().__init__(directory, port, model, **settings)
        self._change = "\n".join(change)

    def start(self, *program: str | Path) -> None:
        super().start(*(program or (sys.executable, "-c", _CHANGED.format(change=self._change))))


def asked(job_id: str, prompt: str = "Tell me a story.", max_tokens: int = 8) -> dict[str, Any]:
    return {"id": job_id, "prompt": prompt, "max_tokens": max_tokens}


def distinct_finals(device: Device, job_id: str) -> int:
    return len({repr(sorted(body.items())) for body in device.of(job_id, "final")})


def infos(device: Device) -> list[dict[str, Any]]:
    return [heard.body["models"][0] for heard in device.heard if heard.topic.endswith("/info")]


async def test_a_worker_that_is_stopped_amid_a_job_is_replaced_and_the_job_runs_again(
    tmp_path: Path, broker: Broker, model_folder: Path
) -> None:
    impatient = ChangedBox(_IMPATIENT, directory=tmp_path, port=broker.port, model=model_folder)
    async with Device(broker.port) as device, impatient as running:
        device.publish("text", asked("j1", max_tokens=100))
        await device.until(lambda: device.of("j1", "chunk") != [])
        stopped = running.worker
        os.kill(stopped, signal.SIGSTOP)
        final = await device.final("j1")
        assert (final["state"], final["attempt"]) == ("SUCCEEDED", 2)
        assert [body["state"] for body in device.of("j1", "state")] == ["accepted", "started", "restarted"]
        assert stopped not in running.workers


async def test_of_twenty_jobs_beside_two_that_crash_the_worker_only_those_two_fail(
    tmp_path: Path, broker: Broker, model_folder: Path
) -> None:
    good, poison = [f"good{n}" for n in range(20)], ["poison0", "poison1"]
    order = [*good[:3], *poison, *good[3:]]
    sick = ChangedBox(_SICK, directory=tmp_path, port=broker.port, model=model_folder)
    async with Device(broker.port) as device, sick:
        for job_id in order:
            device.publish("text", asked(job_id, prompt=f"Tell me of {job_id}."))
        finals = {job_id: await device.final(job_id) for job_id in order}

        ends = {job_id: (final["state"], (final["error"] or {}).get("code")) for job_id, final in finals.items()}
        assert ends == dict.fromkeys(good, ("SUCCEEDED", None)) | dict.fromkeys(poison, ("FAILED", "internal"))
        assert [distinct_finals(device, job_id) for job_id in order] == [1] * len(order)
        assert [finals[job_id]["attempt"] for job_id in poison] == [2, 2]
        assert {final["attempt"] for final in finals.values()} == {1, 2}


async def test_a_worker_that_leaks_is_replaced_between_jobs_of_which_none_runs_again(
    tmp_path: Path, broker: Broker, model_folder: Path
) -> None:
    leaking: dict[str, Any] = {"engine": {"leak_bytes": 32 << 20}}
    sick = ChangedBox(_SICK, _REPLACED_SOON, directory=tmp_path, port=broker.port, model=model_folder, **leaking)
    finals: list[dict[str, Any]] = []
    async with Device(broker.port, also=("slm/box1/info",)) as device, sick as running:
        # It is not replaced before it has lived as long as it took to load, so that the number is open.
        while not any(event["event"] == "engine.worker_outgrown" for event in running.events):
            batch = [f"j{len(finals) + number}" for number in range(6)]
            for job_id in batch:
                device.publish("text", asked(job_id, prompt=f"Is {job_id} a leak?"))
            finals += [await device.final(job_id) for job_id in batch]

        assert {(final["state"], final["attempt"]) for final in finals} == {("SUCCEEDED", 1)}
        assert [distinct_finals(device, final["id"]) for final in finals] == [1] * len(finals)
        assert not [event for event in running.events if event["event"] == "engine.worker_lost"]
        assert any(info["state"] == "loading" and "has grown by" in (info["detail"] or "") for info in infos(device))


async def test_a_box_with_a_broken_model_says_so_refuses_and_recovers_when_it_is_mended(
    tmp_path: Path, broker: Broker, model_folder: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder, copy_function=os.link)
    graph = folder / "model.onnx"
    graph.rename(folder / "away")
    graph.write_bytes(b"not a graph")
    sentence = "the model model cannot be loaded: see why in the box's log, or pull it again"
    async with Device(broker.port, also=("slm/box1/info",)) as device, Box(tmp_path, broker.port, folder) as running:
        await device.until(lambda: any(info["state"] == "failed" for info in infos(device)))
        assert infos(device)[-1]["detail"] == sentence
        device.publish("text", asked("j1"))
        refused = await device.final("j1")
        assert (refused["state"], refused["error"]["code"]) == ("REJECTED", "model_unavailable")
        assert (refused["error"]["message"], refused["error"]["retryable"]) == (sentence, True)

        (folder / "away").replace(graph)
        await device.until(lambda: infos(device)[-1]["state"] == "ready")
        device.publish("text", asked("j2"))
        assert (await device.final("j2"))["state"] == "SUCCEEDED"
        assert await running.stop() == 0


async def test_a_worker_killed_while_the_agent_drains_costs_its_job_a_restart_and_not_its_answer(
    box: MakeBox, broker: Broker
) -> None:
    async with Device(broker.port, keep=True) as device, box() as running:
        device.publish("text", asked("j1", max_tokens=100))
        await device.until(lambda: device.of("j1", "chunk") != [])
        worker = running.worker
        stopping = asyncio.create_task(running.stop())
        await running.logged("service.draining")
        os.kill(worker, signal.SIGKILL)
        assert await stopping == 0
        assert device.of("j1", "final") == []
        running.start()
        final = await device.final("j1")
        assert (final["state"], final["attempt"]) == ("SUCCEEDED", 2)
