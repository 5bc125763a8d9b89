"""A box that changes its configuration, and what comes in between: real broker and spool, engines that obey."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.contract.jobs import Key
from agent.errors import UserError
from agent.settings import Settings
from agent.supervisor import Outcome, Supervisor
from agent.testing import Attempt, FakeEngine
from tests.brokers import Broker, free_port
from tests.devices import Device
from tests.waiting import eventually


class Engine(FakeEngine):
    """An engine that is ready while it is served, or, if it is called slow, when the test says so."""

    stuck = False

    def __init__(self, name: str) -> None:
        super().__init__(words=["Hello"], model=name)
        self.health = replace(self.health, state="loading")
        self.spec = name
        self.served = 0
        self.serving = False

    async def serve(self) -> None:
        self.served += 1
        self.serving = True
        if self.spec != "slow":
            self.become(replace(self.health, state="ready"))
        try:
            await super().serve()
        finally:
            await asyncio.sleep(0.01)  # as long as the kernel takes to end a process
            self.serving = False
            self.become(replace(self.health, state="loading"))


class Rig:
    """A supervisor with a configuration to be changed by the test.

    Attributes:
        settings: what is read at the next change; an exception is raised.
        engines: by the names of their models, all that were made.

    """

    def __init__(self, settings: Settings) -> None:
        self.settings: Settings | Exception = settings
        self.read = 0
        self.engines: dict[str, Engine] = {}
        self.adopted: list[Settings] = []
        self.asked: list[bytes] = []
        self.stop = asyncio.Event()
        self.supervisor = Supervisor(self.configure, desired=self.asked.append, adopted=self.adopted.append)

    def configure(self) -> Settings:
        self.read += 1
        if isinstance(self.settings, Exception):
            raise self.settings
        return self.settings

    def change(self, **sections: Any) -> None:
        assert isinstance(self.settings, Settings)
        told = self.settings.model_dump(exclude_unset=True)
        self.settings = Settings.model_validate({**told, **sections})

    def local_engines(
        self, settings: Settings, _machine: object, *, running: Mapping[str, Engine] | None = None, **_: object
    ) -> dict[str, Engine]:
        name = settings.models.text
        assert name is not None
        if running and running["text"].spec == name:
            return {"text": running["text"]}
        self.engines[name] = Engine(name)
        return {"text": self.engines[name]}


@pytest.fixture
def settings(tmp_path: Path, broker: Broker) -> Settings:
    return Settings.model_validate(
        {
            "device": {"id": "box1"},
            "mqtt": {"port": broker.port},
            "state_dir": str(tmp_path / "state"),
            "models": {"text": "first"},
            "drain_s": 0.1,
        }
    )


@pytest.fixture
async def rig(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    found = Rig(settings)
    monkeypatch.setattr("agent.supervisor.local_engines", found.local_engines)
    running = asyncio.create_task(found.supervisor.run(found.stop))
    try:
        await eventually(lambda: online(found) or running.done())
        yield found
    finally:
        found.stop.set()
        await running


@pytest.fixture
async def device(broker: Broker) -> AsyncIterator[Device]:
    async with Device(broker.port, keep=True, also=("slm/box1/config/#", "slm/box1/info")) as found:
        yield found


def online(rig: Rig) -> bool:
    return rig.supervisor._box is not None and rig.supervisor._box.online


def become(rig: Rig, name: str, **change: Any) -> None:
    """Have an engine change its health."""
    engine = rig.engines[name]
    engine.become(replace(engine.health, **change))


async def loading(rig: Rig, **sections: Any) -> asyncio.Task[Outcome]:
    """Begin a change to a model that loads until the test ends that, and wait for the box to be online with it."""
    rig.change(models={"text": "slow"}, **sections)
    changing = asyncio.create_task(rig.supervisor.change())
    await eventually(lambda: "slow" in rig.engines and rig.engines["slow"].serving and online(rig))
    return changing


async def running_job(rig: Rig, device: Device, *, drain_s: float, **job: Any) -> Attempt:
    """Have a job run on the first engine, under the test's control, on a box that drains for so long."""
    engine = rig.engines["first"]
    engine._words = None
    rig.change(drain_s=drain_s)
    await rig.supervisor.change()
    device.publish("text", {"id": "j1", "prompt": "x", **job})
    return await engine.attempt(Key("dev7", "j1"))


async def test_the_same_configuration_disturbs_nothing(rig: Rig) -> None:
    with capture_logs() as logged:
        assert await rig.supervisor.change() == Outcome("unchanged")
    assert "service.draining" not in {each["event"] for each in logged}


async def test_what_changes_is_in_force_afterwards(rig: Rig, device: Device) -> None:
    rig.change(limits={"max_tokens": 7})
    assert await rig.supervisor.change() == Outcome("applied")
    await device.until(
        lambda: any(each.topic == "slm/box1/info" and each.body["limits"]["max_tokens"] == 7 for each in device.heard)
    )


async def test_an_engine_that_would_be_the_same_goes_on_running(rig: Rig) -> None:
    rig.change(limits={"max_tokens": 7})
    await rig.supervisor.change()
    assert (rig.engines["first"].served, rig.engines["first"].serving) == (1, True)


async def test_a_model_is_ended_before_the_one_that_replaces_it_is_begun(rig: Rig) -> None:
    """There may be memory for one of them alone."""
    rig.change(models={"text": "slow"})
    changing = asyncio.create_task(rig.supervisor.change())
    await eventually(lambda: "slow" in rig.engines and rig.engines["slow"].serving)
    assert not rig.engines["first"].serving
    become(rig, "slow", state="ready")
    assert await changing == Outcome("applied")


async def test_jobs_are_taken_on_while_a_model_loads_which_answers_them(rig: Rig, device: Device) -> None:
    changing = await loading(rig)
    device.publish("text", {"id": "j1", "prompt": "x"})
    await device.state("j1", "accepted")
    become(rig, "slow", state="ready")
    assert (await device.final("j1"))["placement"]["model"] == "slow"
    assert await changing == Outcome("applied")


async def test_a_configuration_that_is_wrong_changes_nothing_and_is_said(rig: Rig) -> None:
    rig.settings = UserError("box.yaml:3: mqtt.prot: unknown key, did you mean mqtt.port?")
    with capture_logs() as logged:
        outcome = await rig.supervisor.change()
    assert outcome == Outcome("refused", "box.yaml:3: mqtt.prot: unknown key, did you mean mqtt.port?")
    assert [each["event"] for each in logged] == ["configuration.refused"]
    assert online(rig)


async def test_a_defect_while_it_is_read_ends_no_box(rig: Rig) -> None:
    rig.settings = ZeroDivisionError()
    assert (await rig.supervisor.change()).state == "refused"
    assert online(rig)


@pytest.mark.parametrize(
    "sections",
    [{"device": {"id": "other"}}, {"state_dir": "/elsewhere"}, {"spool": {"max_jobs": 5}}],
    ids=["device.id", "state_dir", "spool.max_jobs"],
)
async def test_what_jobs_are_kept_under_cannot_change(rig: Rig, sections: dict[str, Any]) -> None:
    rig.change(**sections)
    outcome = await rig.supervisor.change()
    assert outcome.state == "refused"
    assert "cannot change while the agent runs: restart it for that" in str(outcome.detail)


async def test_a_service_that_cannot_be_built_changes_nothing(rig: Rig) -> None:
    rig.change(mqtt={"port": 1883, "tls": {"ca_file": "/missing"}})
    outcome = await rig.supervisor.change()
    assert outcome == Outcome("refused", "mqtt.tls.ca_file: cannot use /missing: No such file or directory")
    assert online(rig)


async def test_a_model_that_cannot_be_loaded_brings_the_one_before_back(rig: Rig) -> None:
    changing = await loading(rig)
    become(rig, "slow", state="failed", detail="its file is cut short")
    assert await changing == Outcome("rolled_back", "model slow cannot be loaded (its file is cut short)")
    assert (rig.engines["first"].serving, rig.engines["slow"].serving) == (True, False)


async def test_no_job_is_ended_for_a_model_that_cannot_be_loaded(rig: Rig, device: Device) -> None:
    await running_job(rig, device, drain_s=0.1, model="first")
    rig.engines["first"]._words = ["Hello"]
    changing = await loading(rig)
    device.publish("text", {"id": "j2", "prompt": "x", "model": "first"})
    await device.state("j2", "accepted")
    become(rig, "slow", state="failed", detail="its file is cut short")
    await changing
    finals = [await device.final(name) for name in ("j1", "j2")]
    assert [final["state"] for final in finals] == ["SUCCEEDED"] * 2


async def test_a_broker_that_is_not_reached_brings_the_one_before_back(
    rig: Rig, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.supervisor._SUBSCRIBED_S", 0.2)
    port = free_port()
    rig.change(mqtt={"port": port})
    outcome = await rig.supervisor.change()
    assert outcome == Outcome("rolled_back", f"the broker at 127.0.0.1:{port} was not reached within 0 s")
    device.publish("text", {"id": "j1", "prompt": "x"})
    await device.final("j1")


async def test_a_broker_that_was_away_before_is_no_reason_to_go_back(rig: Rig, broker: Broker) -> None:
    broker.kill()
    await eventually(lambda: not online(rig))
    rig.change(limits={"max_tokens": 7})
    assert await rig.supervisor.change() == Outcome("applied")


async def test_a_model_that_had_failed_before_is_no_reason_to_go_back(rig: Rig) -> None:
    become(rig, "first", state="failed", detail="its file is cut short")
    rig.change(limits={"max_tokens": 7})
    assert await rig.supervisor.change() == Outcome("applied")


async def test_a_service_that_fails_on_trial_brings_the_one_before_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr("agent.outbox.Outbox.run", fail)
    rig.change(limits={"max_tokens": 7})
    outcome = await rig.supervisor.change()
    assert outcome.state == "rolled_back"
    await eventually(lambda: online(rig))


async def test_what_was_adopted_last_is_what_is_in_force(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.supervisor._SUBSCRIBED_S", 0.1)
    rig.change(mqtt={"port": free_port()}, log={"level": "debug"})
    await rig.supervisor.change()
    assert [each.log.level for each in rig.adopted] == ["info", "debug", "info"]


async def test_a_storm_of_signals_is_one_change_after_the_one_that_is_under_way(rig: Rig, device: Device) -> None:
    attempt = await running_job(rig, device, drain_s=30)
    read = rig.read
    rig.change(limits={"max_tokens": 8})
    draining = rig.supervisor.ask()
    await eventually(lambda: rig.read == read + 1)
    storm = [rig.supervisor.ask() for _ in range(20)]
    attempt.start()
    attempt.finish()
    assert (await draining, {await each for each in storm}) == (Outcome("applied"), {Outcome("unchanged")})
    assert rig.read == read + 2


async def test_a_job_that_outlasts_the_drain_begins_anew_as_another_attempt(rig: Rig, device: Device) -> None:
    attempt = await running_job(rig, device, drain_s=0.1)
    attempt.start()
    attempt.say("Hel")
    rig.engines["first"]._words = ["Hello"]
    rig.change(limits={"max_tokens": 8})
    await rig.supervisor.change()
    final = await device.final("j1")
    assert (final["text"], final["attempt"]) == ("Hello", 2)


async def test_a_job_for_a_model_that_the_box_has_no_more_is_answered(rig: Rig, device: Device) -> None:
    await running_job(rig, device, drain_s=0.1, model="first")
    rig.change(models={"text": "second"})
    await rig.supervisor.change()
    error = (await device.final("j1"))["error"]
    assert error["code"] == "model_unavailable"
    assert error["message"] == "this box serves `second`: leave `model` out, or name that"


async def test_a_stop_while_the_configuration_is_read_does_not_wait_for_that(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, well = threading.Event(), threading.Event()

    def hang() -> Settings:
        reading.set()
        well.wait()
        raise AssertionError

    monkeypatch.setattr(rig.supervisor, "_configure", hang)
    changing = asyncio.create_task(rig.supervisor.change())
    await eventually(reading.is_set)
    try:
        rig.stop.set()
        with pytest.raises(asyncio.CancelledError):
            await changing
        await eventually(lambda: not rig.engines["first"].serving)
    finally:
        well.set()  # the process could not end with a thread that hangs


async def test_a_stop_while_the_box_drains_for_a_change_ends_it(rig: Rig, device: Device) -> None:
    attempt = await running_job(rig, device, drain_s=30)
    rig.change(models={"text": "second"})
    changing = asyncio.create_task(rig.supervisor.change())
    with capture_logs() as logged:
        await eventually(lambda: "service.draining" in {each["event"] for each in logged})
    rig.stop.set()
    attempt.start()
    attempt.finish()
    with pytest.raises(asyncio.CancelledError):
        await changing
    await device.final("j1")
    assert rig.engines["second"].served == 0


async def test_a_stop_during_the_trial_ends_the_box_at_once(rig: Rig) -> None:
    changing = await loading(rig)
    rig.stop.set()
    with pytest.raises(asyncio.CancelledError):
        await changing
    await eventually(lambda: not rig.engines["slow"].serving)


@pytest.mark.parametrize("failing", ["agent.herald.Herald.run", "agent.ageing.Ageing.run"])
async def test_a_side_task_that_fails_ends_the_agent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    async def fail(_: object) -> None:
        raise ZeroDivisionError

    rig = Rig(settings)
    monkeypatch.setattr("agent.supervisor.local_engines", rig.local_engines)
    monkeypatch.setattr(failing, fail)
    with pytest.raises(ExceptionGroup) as ended:
        await rig.supervisor.run(rig.stop)
    assert ended.group_contains(ZeroDivisionError)
    assert not rig.engines["first"].serving


async def test_nobody_waits_for_a_change_of_a_box_that_has_ended(rig: Rig) -> None:
    rig.stop.set()
    await eventually(lambda: not rig.engines["first"].serving)
    with pytest.raises(asyncio.CancelledError):
        await rig.supervisor.change()


async def test_what_is_desired_is_handed_on_by_each_service(rig: Rig, device: Device) -> None:
    device._client.publish("slm/box1/config/desired", b"limits: {}", 1, retain=True)
    await eventually(lambda: rig.asked == [b"limits: {}"])
    rig.change(limits={"max_tokens": 8})
    await rig.supervisor.change()
    await eventually(lambda: rig.asked == [b"limits: {}"] * 2)


async def test_a_box_that_is_not_to_be_configured_from_afar_hears_nothing_of_it(rig: Rig, device: Device) -> None:
    rig.change(remote_config=False)
    await rig.supervisor.change()
    device._client.publish("slm/box1/config/desired", b"limits: {}", 1)
    await device.caught_up()
    assert rig.asked == []


async def test_a_report_is_published_and_published_again_by_the_next_service(rig: Rig, device: Device) -> None:
    def reports() -> list[bytes]:
        return [each.payload for each in device.heard if each.topic == "slm/box1/config/reported"]

    rig.supervisor.report(b"{}")
    await device.until(lambda: reports() == [b"{}"])
    rig.change(limits={"max_tokens": 8})
    await rig.supervisor.change()
    await device.until(lambda: reports() == [b"{}"] * 2)
