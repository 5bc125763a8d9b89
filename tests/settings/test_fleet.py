"""A fleet in a folder: which files make a device up, and whether all of them are right."""

from pathlib import Path

import pytest

from agent.layers import ConfigError, load
from agent.layers.checking import check
from agent.settings import Device
from tests.settings.conftest import Write

FLEET = Path("fleet")


@pytest.fixture
def fleet(write: Write) -> Write:
    """Write two devices, in one and in two groups."""

    def add(name: str, text: str) -> Path:
        return write(f"fleet/{name}.yaml", text)

    add("base", "mqtt: {host: base, root: base, username: base}\n")
    add("groups/pi", "mqtt: {root: pi, username: pi}\nengine: {slots: 2}\n")
    add("groups/barn", "engine: {slots: 3}\nqueue: {max_jobs: 3}\n")
    add("devices/pi-1", "device: {groups: [pi]}\n")
    add("devices/pi-2", "device:\n  groups: [pi, barn]\nmqtt: {username: own}\nqueue: {max_jobs: 2}\n")
    return add


def problems(*overrides: str) -> list[str]:
    return [str(finding) for finding in check(FLEET, overrides).findings]


def test_a_device_is_its_base_its_groups_and_its_own_file(fleet: Write) -> None:
    del fleet
    settings = load([FLEET], ["device.id=pi-2"], {}).settings
    assert (settings.mqtt.host, settings.mqtt.root, settings.mqtt.username) == ("base", "pi", "own")
    assert (settings.engine.slots, settings.queue.max_jobs, settings.device.groups) == (3, 2, ("pi", "barn"))


def test_groups_go_over_each_other_in_the_devices_order(fleet: Write) -> None:
    fleet("devices/pi-2", "device: {groups: [barn, pi]}")
    assert load([FLEET], ["device.id=pi-2"], {}).settings.engine.slots == 2


def test_a_devices_file_stands_for_all_that_makes_the_device_up(fleet: Write) -> None:
    del fleet
    settings = load([FLEET / "devices/pi-2.yaml"], (), {}).settings
    assert settings == load([FLEET], ["device.id=pi-2"], {}).settings


def test_a_devices_file_is_known_from_inside_its_folder(fleet: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    del fleet
    monkeypatch.chdir(FLEET / "devices")
    assert load([Path("pi-2.yaml")], (), {}).settings.mqtt.host == "base"


def test_a_file_beside_a_fleet_is_a_file(fleet: Write) -> None:
    assert load([fleet("box", "device: {id: pi-1}")], (), {}).settings.mqtt.host == "127.0.0.1"


def test_a_fleets_device_goes_by_the_machines_name_where_nothing_else_names_it(fleet: Write) -> None:
    fleet(f"devices/{Device().id}", "drain_s: 7")
    assert load([FLEET], (), {}).settings.drain_s == 7


def test_the_environment_may_name_the_device(fleet: Write) -> None:
    del fleet
    settings = load([FLEET], (), {"EDGE_SLM__DEVICE__ID": "pi-1"}).settings
    assert (settings.device.id, settings.mqtt.username) == ("pi-1", "pi")


def test_a_file_after_a_fleet_goes_over_it(fleet: Write) -> None:
    own = fleet("../local", "mqtt: {username: local}")
    assert load([FLEET, own], ["device.id=pi-2"], {}).settings.mqtt.username == "local"


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("pi1", "fleet/devices: there is no pi1.yaml for this device; did you mean `pi-1`?"),
        ("zzz", "fleet/devices: there is no zzz.yaml for this device; there are 2, such as pi-1, pi-2"),
    ],
)
def test_a_device_without_a_file_is_told(fleet: Write, device: str, sentence: str) -> None:
    del fleet
    with pytest.raises(ConfigError) as caught:
        load([FLEET], [f"device.id={device}"], {})
    assert str(caught.value) == sentence


def test_a_folder_that_is_no_fleet_is_told(write: Write) -> None:
    write("lab/box.yaml", "")
    with pytest.raises(ConfigError, match=r"^lab: is no fleet's folder, which has a base\.yaml"):
        load([Path("lab")], (), {})


def test_a_path_that_cannot_be_looked_at_is_told() -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(File name too long\); check its name and owner"):
        load([Path("x" * 300)], (), {})


def test_a_fleet_that_is_right_names_its_devices_and_their_groups(fleet: Write) -> None:
    del fleet
    report = check(FLEET)
    assert (report.devices, report.findings, report.unused) == ({"pi-1": ("pi",), "pi-2": ("pi", "barn")}, (), ())


def test_a_mistake_that_devices_share_is_told_once(fleet: Write) -> None:
    fleet("base", "mqtt:\n  hots: x\nlog: {level: loud}\n")
    assert problems() == [
        "fleet/base.yaml:2: unknown key `mqtt.hots`; did you mean `mqtt.host`? (pi-1 and 1 more)",
        "fleet/base.yaml:3: `log.level` should be 'debug', 'info', 'warning' or 'error', not `loud` (pi-1 and 1 more)",
    ]


def test_a_mistake_that_is_one_only_together_is_told_with_its_device(fleet: Write) -> None:
    fleet("groups/barn", "cloud: {enabled: true}")
    assert problems() == [
        "fleet/groups/barn.yaml:1: `cloud`: an enabled cloud needs text_model, vision_model, or both (pi-2)"
    ]


def test_devices_do_not_see_each_other(fleet: Write) -> None:
    fleet("base", "cloud: {slots: 2}")
    fleet("devices/pi-1", "cloud: {enabled: true, text_model: m}")
    fleet("devices/pi-2", "cloud: {enabled: true}")
    assert problems() == [
        "fleet/devices/pi-2.yaml:1: `cloud`: an enabled cloud needs text_model, vision_model, or both"
    ]


def test_all_devices_mistakes_are_told_at_once(fleet: Write) -> None:
    fleet("devices/pi-1", "device: {groups: [pi]}\nqueue: {max_jobs: many}\n")
    fleet("devices/pi-2", "device: {groups: [pi]}\nqueu: {}\n")
    assert problems() == [
        "fleet/devices/pi-1.yaml:2: `queue.max_jobs` should be a valid integer, not `many`",
        "fleet/devices/pi-2.yaml:2: unknown key `queu`; did you mean `queue`?",
    ]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "devices/pi-1",
            "device: {id: pi-3}",
            "fleet/devices/pi-1.yaml:1: `device.id` is pi-3, and the file is named ",
        ),
        (
            "devices/pi-1",
            "device:\n  groups:\n  - barm\n",
            "fleet/devices/pi-1.yaml:3: there is no groups/barm.yaml; did ",
        ),
        ("groups/barn", "device: {id: x}", "fleet/groups/barn.yaml:1: `device.id` is one device's; set it in its own "),
        ("base", "device: {groups: [x]}", "fleet/base.yaml:1: `device.groups` is one device's; set it in its own file"),
        ("devices/pi 3", "", "fleet/devices/pi 3.yaml: `device.id` should match pattern"),
        (
            "devices/dock",
            "pool: pi-1",
            "fleet/devices/pi-1.yaml: a box with a pool's name would have every job of the ",
        ),
    ],
)
def test_what_does_not_fit_together_is_told(fleet: Write, name: str, text: str, sentence: str) -> None:
    fleet(name, text)
    (only,) = problems()
    assert only.startswith(sentence)


def test_a_file_that_would_not_be_read_is_told(fleet: Write, write: Write) -> None:
    del fleet
    write("fleet/devices/pi-3.yml", "")
    assert problems() == ["fleet/devices/pi-3.yml: is not read; name it pi-3.yaml"]


def test_a_group_that_no_device_is_in_is_told_and_its_mistakes_too(fleet: Write) -> None:
    fleet("groups/spare", "quee: {}")
    report = check(FLEET)
    assert report.unused == ("spare",)
    assert [str(finding) for finding in report.findings] == [
        "fleet/groups/spare.yaml:1: unknown key `quee`; did you mean `queue`?"
    ]


def test_a_fleet_without_devices_is_told(write: Write) -> None:
    write("fleet/base.yaml", "")
    (only,) = problems()
    assert only.startswith("fleet: there is no device to check; ")


def test_an_override_goes_over_every_device(fleet: Write) -> None:
    del fleet
    assert problems("queue.max_jobs=0") == [
        "command line: `queue.max_jobs` should be greater than or equal to 1, not `0` (pi-1 and 1 more)"
    ]


def test_the_environment_of_who_checks_a_fleet_plays_no_part(fleet: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    del fleet
    monkeypatch.setenv("EDGE_SLM__NONSENSE", "1")
    assert problems() == []


def test_what_devices_share_is_read_once(fleet: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    del fleet
    read: list[str] = []
    read_bytes = Path.read_bytes

    def noted(file: Path) -> bytes:
        read.append(file.stem)
        return read_bytes(file)

    monkeypatch.setattr(Path, "read_bytes", noted)
    check(FLEET)
    assert sorted(read) == ["barn", "base", "pi", "pi-1", "pi-2"]
