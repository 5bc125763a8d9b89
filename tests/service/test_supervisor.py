"""A box that changes its configuration, and what comes in between: real broker and spool, engines that obey."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.asks import Outcome
from agent.contract.jobs import Key
from agent.errors import UserError
from agent.settings import Settings
from agent.supervisor import Supervisor
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
        found = {}
        for station, name in (("text", settings.models.text), ("vision", settings.models.vision)):
            if name is not None:
                kept = (running or {}).get(station)
                found[station] = kept if kept is not None and kept.spec == name else Engine(name)
                self.engines[name] = found[station]
        return found


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


async def test_a_key_of_the_cloud_that_was_rotated_is_taken_up(rig: Rig, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("nvapi-1")
    rig.change(cloud={"enabled": True, "preset": "nim", "text_model": "m", "api_key_file": str(key)})
    assert (await rig.supervisor.change()).state == "applied"
    assert (await rig.supervisor.change()).state == "unchanged"
    key.write_text("nvapi-2")
    assert (await rig.supervisor.change()).state == "applied"


async def test_a_model_that_was_pulled_anew_is_taken_up(rig: Rig) -> None:
    rig.engines["first"].spec = "first as it was"
    assert (await rig.supervisor.change()).state == "applied"
    assert (rig.engines["first"].served, rig.engines["first"].serving) == (1, True)


async def test_no_change_is_made_while_a_process_that_was_killed_does_not_die(rig: Rig) -> None:
    rig.engines["first"].stuck = True
    rig.change(models={"text": "second"})
    outcome = await rig.supervisor.change()
    assert (outcome.state, "restart the box" in str(outcome.detail)) == ("refused", True)


async def test_a_way_back_that_is_gone_is_said_before_anything_changes(rig: Rig, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("x")
    assert isinstance(rig.settings, Settings)
    port = rig.settings.mqtt.port
    rig.change(mqtt={"port": port, "username": "a", "password_file": str(password)})
    assert (await rig.supervisor.change()).state == "applied"
    password.unlink()
    rig.change(mqtt={"port": port})
    outcome = await rig.supervisor.change()
    assert (outcome.state, "no way back" in str(outcome.detail)) == ("refused", True)


async def test_what_a_box_hears_no_more_the_broker_is_told(rig: Rig, device: Device) -> None:
    rig.change(sources={"cam": {"topic": "cams/one/raw", "camera": "one"}})
    await rig.supervisor.change()
    rig.change(sources={})
    await rig.supervisor.change()
    await eventually(lambda: online(rig))
    await device.caught_up()
    box = rig.supervisor._box
    assert box is not None
    received = box.service.bus.stats.received
    device._client.publish("cams/one/raw", b"\xff\xd8\xff", 1)
    device.publish("text", {"id": "j1", "prompt": "x"})
    await device.final("j1")
    assert box.service.bus.stats.received == received + 1


async def test_an_engine_that_would_be_the_same_goes_on_running(rig: Rig) -> None:
    rig.change(queue={"max_jobs": 7})
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


async def test_where_no_model_has_to_be_loaded_the_services_change_places_once(rig: Rig) -> None:
    rig.change(models={"text": "first", "vision": "second"})
    assert (await rig.supervisor.change()).state == "applied"
    rig.change(models={"text": "first", "vision": None})
    with capture_logs() as logged:
        assert (await rig.supervisor.change()).state == "applied"
    assert [each["event"] for each in logged].count("service.draining") == 1
    assert not rig.engines["second"].serving


async def test_a_change_that_waits_for_a_model_to_load_is_told(rig: Rig) -> None:
    changing = await loading(rig)
    rig.supervisor.ask()
    assert "another change waits for the end of this one" in rig.supervisor._herald.status
    become(rig, "slow", state="ready")
    await changing


async def test_a_clock_that_is_set_while_the_services_change_places_ends_no_job(
    rig: Rig, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.ageing._CLOCK_EVERY_S", 60.0)
    await running_job(rig, device, drain_s=0.1, deadline_s=60)
    wall = time.time
    monkeypatch.setattr("time.time", lambda: wall() + 86_400.0)
    rig.engines["first"]._words = ["Hello"]
    rig.change(queue={"max_jobs": 7})
    await rig.supervisor.change()
    assert (await device.final("j1"))["state"] == "SUCCEEDED"


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


async def test_a_broker_that_goes_away_meanwhile_is_blamed_on_no_change_but_of_the_way_to_it(
    rig: Rig, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.supervisor._SUBSCRIBED_S", 0.2)
    changing = await loading(rig)
    broker.kill()
    become(rig, "slow", state="ready")
    assert await changing == Outcome("applied")


async def test_a_broker_that_was_away_before_is_no_reason_to_go_back(rig: Rig, broker: Broker) -> None:
    broker.kill()
    await eventually(lambda: not online(rig))
    rig.change(queue={"max_jobs": 7})
    assert await rig.supervisor.change() == Outcome("applied")


async def test_a_model_that_had_failed_before_is_no_reason_to_go_back(rig: Rig) -> None:
    become(rig, "first", state="failed", detail="its file is cut short")
    rig.change(queue={"max_jobs": 7})
    assert await rig.supervisor.change() == Outcome("applied")


async def test_a_service_that_fails_on_trial_brings_the_one_before_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr("agent.outbox.Outbox.run", fail)
    rig.change(queue={"max_jobs": 7})
    outcome = await rig.supervisor.change()
    # What a failure says may hold a prompt, and the outcome is told to everybody.
    assert outcome == Outcome("rolled_back", "a defect ended it: see the box's log")
    await eventually(lambda: online(rig))


async def test_what_was_adopted_last_is_what_is_in_force(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.supervisor._SUBSCRIBED_S", 0.1)
    rig.change(mqtt={"port": free_port()}, log={"level": "debug"})
    await rig.supervisor.change()
    assert [each.log.level for each in rig.adopted] == ["info", "debug", "info"]


async def test_a_storm_of_signals_is_one_change_after_the_one_that_is_under_way(rig: Rig, device: Device) -> None:
    attempt = await running_job(rig, device, drain_s=30)
    read = rig.read
    rig.change(queue={"max_jobs": 8})
    draining = rig.supervisor.ask()
    await eventually(lambda: rig.read == read + 1)
    storm = [rig.supervisor.ask() for _ in range(20)]
    attempt.start()
    attempt.finish()
    assert (await draining, {await each for each in storm}) == (Outcome("applied"), {Outcome("unchanged")})
    assert rig.read == read + 2


async def test_what_is_tried_for_one_who_asked_is_not_tried_for_the_next(rig: Rig) -> None:
    assert isinstance(rig.settings, Settings)
    tried = Settings.model_validate({**rig.settings.model_dump(exclude_unset=True), "models": {"text": "slow"}})
    trial = asyncio.create_task(rig.supervisor.change(lambda: tried))
    await eventually(lambda: "slow" in rig.engines and rig.engines["slow"].serving)
    reload = rig.supervisor.ask()
    become(rig, "slow", state="failed", detail="its file is cut short")
    assert ((await trial).state, (await reload).state) == ("rolled_back", "unchanged")
    assert rig.engines["slow"].served == 1


async def test_whoever_asked_knows_that_it_is_in_force_before_the_next_is_read(rig: Rig) -> None:
    assert isinstance(rig.settings, Settings)
    tried = Settings.model_validate({**rig.settings.model_dump(exclude_unset=True), "drain_s": 0.2})
    trial = rig.supervisor.ask(lambda: tried, lambda: setattr(rig, "settings", tried))
    assert (await rig.supervisor.change(), trial.result()) == (Outcome("unchanged"), Outcome("applied"))


async def test_a_job_that_outlasts_the_drain_begins_anew_as_another_attempt(rig: Rig, device: Device) -> None:
    attempt = await running_job(rig, device, drain_s=0.1)
    attempt.start()
    attempt.say("Hel")
    rig.engines["first"]._words = ["Hello"]
    rig.change(queue={"max_jobs": 8})
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
    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    rig = Rig(settings)
    monkeypatch.setattr("agent.supervisor.local_engines", rig.local_engines)
    monkeypatch.setattr(failing, fail)
    with pytest.raises(ExceptionGroup) as ended:
        await rig.supervisor.run(rig.stop)
    assert ended.group_contains(ZeroDivisionError)
    assert not rig.engines["first"].serving


async def test_a_service_that_fails_while_a_model_loads_ends_the_agent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(settings)
    monkeypatch.setattr("agent.supervisor.local_engines", rig.local_engines)
    running = asyncio.create_task(rig.supervisor.run(rig.stop))
    await eventually(lambda: online(rig))
    changing = await loading(rig)
    box = rig.supervisor._box
    assert box is not None
    monkeypatch.setattr(box.service.intake, "receive", lambda _: 1 / 0)
    async with Device(settings.mqtt.port) as device:
        device.publish("text", {"id": "j1", "prompt": "x"})
        with pytest.raises(ExceptionGroup) as ended:
            await running
    assert ended.group_contains(ZeroDivisionError)
    assert changing.cancelled() or await asyncio.wait([changing])


async def test_nobody_waits_for_a_change_of_a_box_that_has_ended(rig: Rig) -> None:
    rig.stop.set()
    await eventually(lambda: not rig.engines["first"].serving)
    with pytest.raises(asyncio.CancelledError):
        await rig.supervisor.change()


async def test_what_is_desired_is_handed_on_by_each_service(rig: Rig, device: Device) -> None:
    device._client.publish("slm/box1/config/desired", b"limits: {}", 1, retain=True)
    await eventually(lambda: rig.asked == [b"limits: {}"])
    rig.change(queue={"max_jobs": 8})
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
    rig.change(queue={"max_jobs": 8})
    await rig.supervisor.change()
    await device.until(lambda: reports() == [b"{}"] * 2)
