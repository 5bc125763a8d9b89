"""``edge-slm fleet``, as an operator types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import cli
from tests.boxes import edge_slm
from tests.brokers import Broker
from tests.fleet.test_rollout import Boxes


@pytest.fixture
def folder(tmp_path: Path, broker: Broker) -> Path:
    fleet = tmp_path / "fleet"
    (fleet / "devices").mkdir(parents=True)
    (fleet / "base.yaml").write_text(f"mqtt: {{port: {broker.port}}}")
    for name in ("a", "b"):
        (fleet / "devices" / f"{name}.yaml").write_text("device: {groups: []}")
    return fleet


Run = Callable[..., tuple[int | str | None, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> tuple[int | str | None, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(each) for each in arguments])
        return left.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--all"], "say once what to change"),
        (["--all", "--clear", "--set", "engine.slots=2"], "say once what to change"),
        (["--set", "engine.slots=2"], "name whom it is for"),
        (["--all", "--group", "pi", "--clear"], "name whom it is for"),
        (["--all", "--set", "engine.slotz=2"], "did you mean `engine.slots`"),
        (["--all", "--set", "pool=other"], "`pool` cannot be set from afar"),
        (["--all", "--file", "no-such-file.yaml"], "no-such-file.yaml cannot be read"),
        (["--group", "pi", "--clear"], "there is no group pi in this fleet"),
    ],
)
def test_what_cannot_be_meant_is_told_with_exit_code_2(run: Run, folder: Path, arguments: list[str], said: str) -> None:
    code, complaint = run("fleet", "push", folder, *arguments)
    assert (code, said in complaint) == (2, True)


async def test_a_push_that_is_taken_ends_with_0_and_the_status_tells_of_it(folder: Path, broker: Broker) -> None:
    change = folder / "change.yaml"
    change.write_text("engine: {slots: 2}  # both have cores for it")
    async with Boxes(broker.port) as boxes:
        boxes.are(a="online", b="online")
        boxes.answers = {"a": "applied", "b": "applied"}
        await boxes.settled()
        pushed = await edge_slm("fleet", "push", folder, "--all", "--file", change)
        status = await edge_slm("fleet", "status", folder, "--json")
    assert (pushed.returncode, [line.split()[:2] for line in pushed.stdout.splitlines()]) == (
        0,
        [["a", "applied"], ["b", "applied"]],
    )
    assert [(each["device"], each["status"], each["state"]) for each in json.loads(status.stdout)] == [
        ("a", "online", "applied"),
        ("b", "online", "applied"),
    ]


async def test_a_push_that_is_refused_ends_with_1_and_says_what_to_do(folder: Path, broker: Broker) -> None:
    async with Boxes(broker.port) as boxes:
        boxes.are(a="online", b="online")
        boxes.answers = {"a": "rolled_back"}
        await boxes.settled()
        pushed = await edge_slm("fleet", "push", folder, "--all", "--set", "engine.slots=2")
    assert (pushed.returncode, [line.split()[:2] for line in pushed.stdout.splitlines()]) == (
        1,
        [["a", "rolled_back"], ["b", "not_sent"]],
    )
    assert "a did not take it, and no more devices are sent it: mend the change and push it again" in pushed.stderr
