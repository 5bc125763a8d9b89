"""What is written about the configuration is true of it."""

from pathlib import Path

from agent import keys
from agent.layers import load
from agent.layers.checking import check

ROOT = Path(__file__).parents[2]


def test_the_documented_keys_are_those_there_are() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    assert keys.table() in page, f"docs/configuration.md should have this table:\n\n{keys.table()}\n"


def test_every_key_has_a_meaning() -> None:
    assert [row for row in keys.table().splitlines() if row.endswith("|  |")] == []


def test_the_example_box_loads() -> None:
    assert load([ROOT / "configs/box.yaml"], (), {}).settings.device.id == "box1"


def test_the_example_fleet_is_right() -> None:
    report = check(ROOT / "configs")
    assert (len(report.devices), report.findings, report.unused) == (5, (), ())
    assert {group for groups in report.devices.values() for group in groups} == {"pi", "jetson", "npu"}


def test_what_the_example_box_has_commented_out_loads_too(tmp_path: Path) -> None:
    section, tried = "", []
    for number, line in enumerate((ROOT / "configs/box.yaml").read_text().splitlines()):
        if line[:1].isalpha():
            section = line.partition(":")[0]
        elif line.startswith("  # ") and ": " in line:
            box = tmp_path / f"{number}.yaml"
            box.write_text(f"{section}:\n{line.replace('# ', '', 1)}\n")
            assert load([box], (), {})
            tried.append(section)
    assert {*tried} == {"mqtt", "cameras", "sources", "cloud"}
