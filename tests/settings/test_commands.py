"""`edge-slm config` as people and their CI use it."""

import json

import pytest

from agent.cli import main
from tests.settings.conftest import Write


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as left:
        main(("config", *arguments))
    captured = capsys.readouterr()
    return left.value.code, captured.out, captured.err


def test_explain_says_what_won_and_what_it_covered(capsys: pytest.CaptureFixture[str], write: Write) -> None:
    base, box = write("base.yaml", "mqtt:\n  host: a\n"), write("box.yaml", "mqtt: {host: b}\n")
    assert run(capsys, "explain", "mqtt.host", "--config", str(base), "--config", str(box)) == (
        0,
        "mqtt.host = b\n  from box.yaml:1\n  over base.yaml:2: a\n  over default: 127.0.0.1\n",
        "",
    )


def test_explain_can_be_read_by_a_program(capsys: pytest.CaptureFixture[str], write: Write) -> None:
    box = write("box.yaml", "device: {groups: [a]}")
    _, out, _ = run(capsys, "explain", "device.groups", "--config", str(box), "--json")
    assert json.loads(out) == [
        {
            "key": "device.groups",
            "value": ["a"],
            "said": [
                {"source": "box.yaml", "line": 1, "value": ["a"]},
                {"source": "default", "line": None, "value": []},
            ],
        }
    ]


def test_what_was_sent_from_afar_and_holds_is_explained_and_shown(
    capsys: pytest.CaptureFixture[str], write: Write
) -> None:
    box = str(write("box.yaml", "device: {id: box1}\nstate_dir: state\nqueue: {max_jobs: 1}"))
    write("state/desired/good", "queue: {max_jobs: 2}")
    _, out, _ = run(capsys, "explain", "queue.max_jobs", "--config", box)
    assert out.splitlines()[1:3] == ["  from slm/box1/config/desired:1", "  over box.yaml:3: 1"]
    assert "max_jobs: 2" in run(capsys, "show", "--config", box)[1]


def test_what_was_sent_from_afar_and_does_not_go_with_the_files_is_left_out_with_a_sentence(
    capsys: pytest.CaptureFixture[str], write: Write
) -> None:
    box = str(write("box.yaml", "device: {id: box1}\nstate_dir: state\npool: dock"))
    write("state/desired/good", "pool: lab")
    code, out, said = run(capsys, "explain", "p*", "--config", box)
    assert (code, "`pool` cannot be set from afar" in said) == (0, True)
    assert "placement = local_only\n  from slm/box1/config/desired, which is left out\n" in out
    assert "pool = dock\n  from box.yaml:3\n" in out


def test_check_tells_each_device_of_a_fleet(capsys: pytest.CaptureFixture[str], write: Write) -> None:
    write("fleet/base.yaml", "")
    write("fleet/groups/pi.yaml", "")
    write("fleet/groups/spare.yaml", "")
    write("fleet/devices/a.yaml", "device: {groups: [pi]}")
    write("fleet/devices/b.yaml", "")
    assert run(capsys, "check", "fleet") == (
        0,
        "the configuration of a is right (pi)\nthe configuration of b is right\n",
        "fleet/groups/spare.yaml: no device is in this group\n",
    )


def test_check_ends_with_2_where_a_device_is_wrong(capsys: pytest.CaptureFixture[str], write: Write) -> None:
    write("fleet/base.yaml", "")
    write("fleet/devices/a.yaml", "\nmqtt: {hots: x}")
    write("fleet/devices/b.yaml", "")
    told = "edge-slm: fleet/devices/a.yaml:2: unknown key `mqtt.hots`; did you mean `mqtt.host`?\n"
    assert run(capsys, "check", "fleet") == (2, "", told)


def test_check_can_be_read_by_a_program(capsys: pytest.CaptureFixture[str], write: Write) -> None:
    write("fleet/base.yaml", "")
    write("fleet/devices/a.yaml", "mqtt: {hots: x}")
    code, out, _ = run(capsys, "check", "fleet", "--json")
    assert (code, json.loads(out)) == (
        2,
        {
            "devices": [{"id": "a", "groups": []}],
            "problems": [
                {
                    "file": "fleet/devices/a.yaml",
                    "line": 1,
                    "key": "mqtt.hots",
                    "message": "unknown key `mqtt.hots`; did you mean `mqtt.host`?",
                    "devices": ["a"],
                }
            ],
            "unused_groups": [],
        },
    )


@pytest.mark.parametrize("flag", [(), ("--config",)])
def test_check_takes_a_single_file_either_way(
    capsys: pytest.CaptureFixture[str], write: Write, flag: tuple[str, ...]
) -> None:
    box = write("box.yaml", "device: {id: box1}")
    assert run(capsys, "check", *flag, str(box)) == (0, "the configuration of box1 is right\n", "")


def test_check_of_two_things_is_refused(capsys: pytest.CaptureFixture[str], write: Write) -> None:
    box = str(write("box.yaml", ""))
    assert run(capsys, "check", box, "--config", box)[0] == 2


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "schema")
    assert (code, "mqtt" in json.loads(out)["properties"]) == (0, True)
