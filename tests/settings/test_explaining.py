"""`edge-slm config explain`: which layer won, and what it covered."""

import pytest

from agent.errors import UsageError
from agent.layers import Loaded, explain, load
from tests.settings.conftest import Write


def told(loaded: Loaded, wanted: str) -> dict[str, list[tuple[str, object]]]:
    return {each.key: [(str(said.origin), said.value) for said in each.said] for each in explain(loaded, wanted)}


def test_every_layer_that_set_a_key_is_named_down_to_the_default(write: Write) -> None:
    base = write("base.yaml", "log: {level: info}\nqueue:\n  max_jobs: 1\n")
    box = write("box.yaml", "\n\nqueue:\n  max_jobs: 007\n")
    loaded = load(
        [base, box], ["queue.max_jobs=5"], {"EDGE_SLM__QUEUE__MAX_JOBS": "4"}, remote=("remote", "queue: {max_jobs: 3}")
    )
    assert told(loaded, "queue.max_jobs") == {
        "queue.max_jobs": [
            ("command line", "5"),
            ("EDGE_SLM__QUEUE__MAX_JOBS", "4"),
            ("remote:1", "3"),
            ("box.yaml:4", "007"),
            ("base.yaml:3", "1"),
            ("default", 64),
        ]
    }


def test_the_value_is_the_effective_one(write: Write) -> None:
    (only,) = explain(load([write("box.yaml", "mqtt: {port: '007'}")], (), {}), "mqtt.port")
    assert only.value == 7


def test_what_nobody_set_is_the_default() -> None:
    assert told(load([], (), {}), "models.text") == {"models.text": [("default", "smollm2-135m")]}


def test_a_section_is_all_its_keys() -> None:
    assert [*told(load([], (), {}), "queue")] == ["queue.max_jobs", "queue.max_jobs_per_client"]


def test_a_pattern_is_all_keys_that_match(write: Write) -> None:
    box = write("box.yaml", "cameras: {a: {detail: low}, b: {prompt: What}}")
    assert told(load([box], (), {}), "cameras.*.de*") == {
        "cameras.a.detail": [("box.yaml:1", "low"), ("default", "auto")],
        "cameras.b.detail": [("default", "auto")],
    }


def test_names_of_the_users_choice_have_no_default(write: Write) -> None:
    box = write("box.yaml", "engine: {provider: QNN, provider_options: {x: 1}}\nsources: {s: {topic: t, camera: c}}")
    loaded = load([box], (), {})
    assert told(loaded, "engine.provider_options.x") == {"engine.provider_options.x": [("box.yaml:1", "1")]}
    assert told(loaded, "sources.s.topic") == {"sources.s.topic": [("box.yaml:2", "t")]}


def test_a_section_that_was_taken_away_says_what_it_covered(write: Write) -> None:
    base, box = write("base.yaml", "mqtt: {tls: {ca_file: a}}"), write("box.yaml", "mqtt: {tls: null}")
    assert told(load([base, box], (), {}), "mqtt.tls") == {
        "mqtt.tls": [("box.yaml:1", None), ("base.yaml:1", {"ca_file": "a"}), ("default", None)]
    }


def test_a_section_that_was_taken_away_from_a_variable_says_so() -> None:
    loaded = load([], ["mqtt.tls=null"], {"EDGE_SLM__MQTT__TLS__CA_FILE": "/x"})
    assert told(loaded, "mqtt.tls") == {
        "mqtt.tls": [
            ("command line", None),
            ("EDGE_SLM__MQTT__TLS__CA_FILE", {"ca_file": "/x"}),
            ("default", None),
        ]
    }


def test_a_key_whose_section_was_taken_away_in_between_is_not_the_lower_layers(write: Write) -> None:
    files = [
        write("base.yaml", "mqtt: {tls: {ca_file: a}}"),
        write("group.yaml", "mqtt:\n  tls: null"),
        write("box.yaml", "mqtt: {tls: {}}"),
    ]
    (only,) = [each for each in explain(load(files, (), {}), "mqtt.tls.*") if each.key == "mqtt.tls.ca_file"]
    assert (only.value, str(only.said[0].origin)) == (None, "group.yaml:2")


def test_secrets_are_masked() -> None:
    environ = {"EDGE_SLM__MQTT": "{password: hunter1}", "EDGE_SLM__MQTT__PASSWORD": "hunter2"}
    assert "hunter" not in str(explain(load([], (), environ), "mqtt"))
    assert "hunter" not in str(explain(load([], (), environ), "*"))


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("mqtt.hots", "there is no key `mqtt.hots`; did you mean `mqtt.host`?"),
        ("zzz", "there is no key `zzz`; `edge-slm config show` shows all"),
        ("z*", "no key matches `z*`; `edge-slm config show` shows all"),
        ("cameras.porch.prompt", "nothing sets `cameras.porch.prompt` here; `edge-slm config show` shows all"),
    ],
)
def test_what_is_no_key_is_told(wanted: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        explain(load([], (), {}), wanted)
    assert str(caught.value) == sentence
