"""Which devices of a fleet's folder a change is for."""

import json
from pathlib import Path

import pytest

from agent.errors import UsageError
from agent.fleet import changed, chosen
from agent.layers import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "base": "mqtt: {root: site7/slm}",
        "groups/pi": "engine: {slots: 1}",
        "groups/jetson": "engine: {slots: 4}",
        "devices/pi1": "device: {groups: [pi]}",
        "devices/pi2": "device: {groups: [pi]}\nmqtt: {root: slm}",
        "devices/orin": "device: {groups: [jetson]}",
    }
    for name, text in files.items():
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return tmp_path


def ids(folder: Path, *groups: str, devices: tuple[str, ...] = ()) -> list[str]:
    return [each.id for each in chosen(folder, groups, devices)]


def test_a_group_is_its_devices(folder: Path) -> None:
    assert ids(folder, "pi") == ["pi1", "pi2"]


def test_groups_and_devices_add_up(folder: Path) -> None:
    assert ids(folder, "jetson", devices=("pi2",)) == ["orin", "pi2"]


def test_without_either_it_is_the_whole_fleet(folder: Path) -> None:
    assert ids(folder) == ["orin", "pi1", "pi2"]


def test_each_device_is_reached_under_its_own_root(folder: Path) -> None:
    topics = [each.topics.config_desired for each in chosen(folder, ["pi"])]
    assert topics == ["site7/slm/pi1/config/desired", "slm/pi2/config/desired"]


@pytest.mark.parametrize(
    ("groups", "devices", "said"),
    [
        (("jetsn",), (), "there is no group jetsn in this fleet: did you mean jetson?"),
        ((), ("box9",), "there is no device box9 in this fleet, which has orin, pi1, pi2"),
    ],
)
def test_who_is_not_in_the_fleet_is_told_with_who_is(
    folder: Path, groups: tuple[str, ...], devices: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError) as error:
        chosen(folder, groups, devices)
    assert str(error.value) == said


def test_a_change_that_one_device_could_not_use_is_told_before_anything_is_sent(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"change\.yaml:1: unknown key `engine\.slotz`; did you mean `engine\.slots`"):
        chosen(folder, ["pi"], change=("change.yaml", b"engine: {slotz: 2}"))


def test_a_change_that_cannot_come_from_afar_is_told_before_anything_is_sent(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"`mqtt\.port` cannot be set from afar"):
        chosen(folder, change=("change.yaml", b"mqtt: {port: 1884}"))


def test_a_folder_that_is_no_fleet_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no devices/\*\.yaml"):
        chosen(tmp_path)


def test_assignments_become_a_layer(folder: Path) -> None:
    layer = changed(["engine.slots=2", "cameras.door.prompt=Who is it, and why: now?", "models.vision=null"])
    assert json.loads(layer) == {
        "engine": {"slots": "2"},
        "cameras": {"door": {"prompt": "Who is it, and why: now?"}},
        "models": {"vision": None},
    }
    assert chosen(folder, change=("--set", layer))


def test_the_same_assignments_have_the_same_hash_in_whatever_order() -> None:
    assert changed(["log.level=debug", "engine.slots=2"]) == changed(["engine.slots=2", "log.level=debug"])


@pytest.mark.parametrize("wrong", [["engine.slots"], ["a.b=1", "a.b=2"], ["a=1", "a.b=2"], ["a.b=2", "a=1"]])
def test_assignments_that_make_no_layer_are_refused(wrong: list[str]) -> None:
    with pytest.raises(UsageError):
        changed(wrong)
