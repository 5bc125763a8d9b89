"""Which settings can come from afar."""

from pathlib import Path
from typing import Any

import pytest

from agent import keys
from agent.remote import objections
from agent.remote.allowed import _ALLOWED, _RESERVED
from agent.settings import Settings


def _sections(names: Any) -> set[tuple[str, ...]]:
    return {tuple(each.split(".")) for each in names}


def _begins(path: tuple[str, ...], with_: tuple[str, ...]) -> bool:
    return path[: len(with_)] == with_


@pytest.mark.parametrize("path", [path for path, _ in keys.fields()], ids=keys.dotted)
def test_whether_a_key_can_come_from_afar_is_decided_once(path: tuple[str, ...]) -> None:
    said = [each for each in (*_sections(_ALLOWED), *_sections(_RESERVED)) if _begins(path, each)]
    parts = [each for each in (*_sections(_ALLOWED), *_sections(_RESERVED)) if _begins(each, path)]
    assert len(said) == 1 or (not said and parts), "a new key: put it into agent.remote.allowed, and into docs/fleet.md"


@pytest.mark.parametrize("key", [*_ALLOWED, *_RESERVED])
def test_the_page_about_fleets_tells_of_each(key: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "fleet.md"
    assert f"`{key}`" in page.read_text()


@pytest.mark.parametrize(
    "key",
    [
        "cloud.enabled",
        "cloud.api_key_file",
        "cloud.frames_to_cloud",
        "cloud.budget.box.day.money",
        "device.id",
        "engine.provider_options.backend_path",
        "models.dir",
        "mqtt.host",
        "mqtt.tls",
        "pool",
        "remote_config",
        "saturation.temperature_c",
        "sources.frigate.topic",
        "state_dir",
    ],
)
def test_what_a_box_decides_for_itself_is_refused_with_a_reason(key: str) -> None:
    ((refused, sentence),) = objections([key], Settings())
    assert (refused, f"`{key}` cannot be set from afar" in sentence) == (key, True)
    assert sentence.endswith("is decided by the box's own files")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"cameras": {"door": {"private": False}}}, "cameras.door.private"),
        ({"cameras": {"door": {"placement": None}}}, "cameras.door.placement"),
        ({"cameras": {"door": {"placement": "prefer_local"}}}, "cameras.door.placement"),
        ({"placement": "prefer_local"}, "placement"),
    ],
)
def test_privacy_is_not_loosened_from_afar(changes: dict[str, Any], key: str) -> None:
    ((refused, sentence),) = objections([key], Settings.model_validate(changes))
    assert (refused, "can only be tightened" in sentence) == (key, True)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"cameras": {"door": {"private": True}}}, "cameras.door.private"),
        ({"cameras": {"door": {"placement": "local_only"}}}, "cameras.door.placement"),
        ({"placement": "local_only"}, "placement"),
        ({"models": {"text": "phi-3.5-mini"}}, "models.text"),
        ({"models": {"text": None, "vision": "shapes-vision"}}, "models.text"),
        ({}, "queue.max_jobs"),
        ({}, "log.level"),
    ],
)
def test_what_a_fleet_needs_from_afar_is_allowed(changes: dict[str, Any], key: str) -> None:
    assert objections([key], Settings.model_validate(changes)) == []


@pytest.mark.parametrize("folder", ["/etc", "../etc", "~/models", ".", "a/b", ""])
def test_a_model_is_named_and_not_a_folder(folder: str, tmp_path: Path) -> None:
    settings = Settings.model_validate({"models": {"text": folder}, "state_dir": tmp_path})
    assert [key for key, _ in objections(["models.text"], settings)] == ["models.text"]


def test_a_section_without_anything_in_it_says_nothing() -> None:
    assert objections(["engine", "cameras", "models", "limits"], Settings()) == []


@pytest.mark.parametrize("key", ["mqtt", "mqtt.tls", "sources", "cloud"])
def test_nor_does_it_open_a_section_that_is_the_boxs_own(key: str) -> None:
    assert [refused for refused, _ in objections([key], Settings())] == [key]
