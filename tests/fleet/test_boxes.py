"""Real boxes on one broker: work shared by a pool, and settings from afar. ``scripts/fleet`` does more of each."""

from pathlib import Path

from tests.brokers import Broker
from tests.fleet.running import Fleet
from tests.fleet.stories import change, harm, killed_on_trial, push, share


async def test_a_pool_answers_every_job_though_a_member_is_killed(
    tmp_path: Path, broker: Broker, model_folder: Path
) -> None:
    async with Fleet(tmp_path, broker, model_folder, ("box1", "box2")) as fleet:
        shared = await share(fleet, jobs=20, victim="box2", kill_after=4, away_s=0)
    assert {finals[0]["state"] for finals in shared.finals.values()} == {"SUCCEEDED"}
    assert all(final == finals[0] for finals in shared.finals.values() for final in finals)
    assert shared.nodes == {"box1": 10, "box2": 10}


async def test_a_change_reaches_a_group_and_a_bad_one_harms_no_box(
    tmp_path: Path, broker: Broker, model_folder: Path
) -> None:
    async with Fleet(tmp_path, broker, model_folder, ("box1", "box2")) as fleet:
        changed = await change(fleet, ["box1", "box2"], "--group", "fast", "--set", "engine.slots=2", jobs=4)
        assert (changed.code, [each["state"] for each in changed.results]) == (0, ["applied", "applied"])
        finals = [each for finals in changed.finals.values() for each in finals.values()]
        assert {each[0]["state"] for each in finals} == {"SUCCEEDED"}

        harms = await harm(fleet, "box1")
        assert [each.report["state"] for each in harms.values()] == ["refused", "refused", "refused", "rolled_back"]
        assert [each.ends for each in harms.values()] == [{"SUCCEEDED"}] * 4

        killed = await killed_on_trial(fleet, "box2")
        assert (killed.report["state"], killed.ends) == ("rolled_back", {"SUCCEEDED"})

        code, results, complaint = await push(fleet, "--device", "box3", "--set", "engine.slots=2")
        assert (code, results, "none of these devices is online" in complaint) == (1, [], True)


async def test_a_box_whose_model_from_afar_is_gone_starts_with_its_own_and_can_be_told_another(
    tmp_path: Path, broker: Broker, model_folder: Path
) -> None:
    gone = b"models: {text: phi-4-mini}"
    fleet = Fleet(tmp_path, broker, model_folder, ("box1",))
    held = tmp_path / "box1" / "state" / "desired"
    held.mkdir(parents=True)
    (held / "good").write_bytes(gone)
    async with fleet:
        report, _ = await fleet.tell("box1", gone)
        assert (report["state"], "not installed" in report["detail"]) == ("refused", True)
        assert (await fleet.tell("box1", b"drain_s: 9"))[0]["state"] == "applied"
