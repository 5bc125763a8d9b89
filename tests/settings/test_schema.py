"""The JSON Schema says of a file what the layers say."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from agent.layers import ConfigError, load
from agent.layers.schema import schema
from tests.settings.conftest import Write

CONFIGS = Path(__file__).parents[2] / "configs"


def accepts(document: Any) -> bool:
    return jsonschema.Draft202012Validator(schema()).is_valid(document)


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("file", sorted(CONFIGS.rglob("*.yaml")), ids=lambda file: file.stem)
def test_the_example_files_are_accepted(file: Path) -> None:
    assert accepts(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "mqtt:",
        "mqtt: {port: 1883}",
        'mqtt: {port: "1883"}',
        "mqtt: {protocol: 5}",
        "mqtt: {protocol: 3.1.1}",
        "mqtt: {username: null}",
        "mqtt: {tls: null}",
        "mqtt: {tls: {}}",
        "device: {id: 007, groups: [7, x]}",
        "cloud: {enabled: false}",
        "cloud: {enabled: yes, text_model: m}",
        "metrics_s: 1e-1",
        'metrics_s: "2.5"',
        "cameras: {porch: {detail: low, skip_similar: null}}",
        "cameras:",
        "engine: {provider: QNN, provider_options: {level: 3, path: /x}}",
    ],
)
def test_what_the_layers_accept_it_accepts(write: Write, text: str) -> None:
    assert load([write("box.yaml", text)], (), {})
    assert accepts(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "mqtt: {hots: x}",
        "mqtt: {port: 0}",
        "mqtt: {port: often}",
        "mqtt: {port: null}",
        "mqtt: {port: 1.5}",
        "mqtt: {protocol: 4}",
        "mqtt: {password: hunter2}",
        "mqtt: 5",
        "device: {groups: lab}",
        "device: {id: a b}",
        "log: {level: loud}",
        "cloud: {enabled: maybe}",
        "metrics_s: 0",
        "cameras: {a b: {}}",
        "cameras: {porch: {promt: x}}",
        "engine: {provider_options: {level: []}}",
    ],
)
def test_what_the_layers_refuse_it_refuses(write: Write, text: str) -> None:
    with pytest.raises(ConfigError):
        load([write("box.yaml", text)], (), {})
    assert not accepts(yaml.safe_load(text))


def test_a_layer_need_not_have_what_the_whole_must() -> None:
    assert accepts({"sources": {"frigate": {"prompt": "What?"}}})


def test_every_key_says_what_it_means() -> None:
    assert "The broker's name or address." in json.dumps(schema())
