from pathlib import Path

import pytest
import yaml

from agent.layers import ConfigError, Problem, load, said, show
from agent.layers.reading import Origin
from agent.settings import Settings
from tests.settings.conftest import Write


def problems(*files: Path, overrides: tuple[str, ...] = (), environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(files, overrides, environ or {})
    return [str(problem) for problem in caught.value.problems]


def test_without_layers_the_defaults_hold() -> None:
    assert load([], (), {}).settings == Settings()


def test_later_goes_over_earlier(write: Write) -> None:
    base = write("base.yaml", "mqtt: {host: base, port: 1, root: base, username: base}")
    box = write("box.yaml", "mqtt: {port: 2, root: box, username: box}")
    environ = {"EDGE_SLM__MQTT__ROOT": "variable", "EDGE_SLM__MQTT__USERNAME": "variable"}
    mqtt = load([base, box], ["mqtt.username=line"], environ).settings.mqtt
    assert (mqtt.host, mqtt.port, mqtt.root, mqtt.username) == ("base", 2, "variable", "line")


def test_lists_replace(write: Write) -> None:
    base, box = write("base.yaml", "device: {groups: [a, b]}"), write("box.yaml", "device: {groups: [c]}")
    assert load([base, box], (), {}).settings.device.groups == ("c",)


def test_null_takes_an_optional_section_back(write: Write) -> None:
    base, box = write("base.yaml", "mqtt: {tls: {ca_file: ca.pem}}"), write("box.yaml", "mqtt: {tls: null}")
    assert load([base], (), {}).settings.mqtt.tls is not None
    assert load([base, box], (), {}).settings.mqtt.tls is None


def test_an_empty_optional_section_is_present(write: Write) -> None:
    assert load([write("box.yaml", "mqtt: {tls: {}}")], (), {}).settings.mqtt.tls is not None


@pytest.mark.parametrize("text", ["", "# all commented out\n", "mqtt:\n  # host: x\n", "---\n"])
def test_what_says_nothing_changes_nothing(write: Write, text: str) -> None:
    assert load([write("box.yaml", text)], (), {}).settings == Settings()


@pytest.mark.parametrize("written", ["no", "007", "1e3", "'on'", '"12"', "null_", "2026-11-22"])
def test_a_text_is_what_is_written(write: Write, written: str) -> None:
    settings = load([write("box.yaml", f"device: {{id: {written}}}")], (), {}).settings
    assert settings.device.id == written.strip("'\"")


def test_a_quoted_number_is_a_number(write: Write) -> None:
    assert load([write("box.yaml", 'mqtt: {port: "8883", protocol: 5}')], (), {}).settings.mqtt.port == 8883


def test_a_variable_is_text_whatever_it_looks_like() -> None:
    mqtt = load([], (), {"EDGE_SLM__MQTT__PASSWORD": "{no: # yes", "EDGE_SLM__MQTT__USERNAME": "null"}).settings.mqtt
    assert mqtt.password is not None
    assert (mqtt.password.get_secret_value(), mqtt.username) == ("{no: # yes", "null")


def test_a_variable_for_a_list_or_a_section_is_yaml() -> None:
    environ = {
        "EDGE_SLM__DEVICE__GROUPS": "[lab, 7]",
        "EDGE_SLM__MQTT": "{host: a, port: 1}",
        "EDGE_SLM__MQTT__PORT": "2",
    }
    settings = load([], (), environ).settings
    assert (settings.device.groups, settings.mqtt.host, settings.mqtt.port) == (("lab", "7"), "a", 2)


def test_variables_of_others_are_not_ours() -> None:
    assert load([], (), {"EDGE_SLM": "x", "EDGE_SLM_DEBUG": "1", "PATH": "/bin"}).settings == Settings()


def test_the_environment_is_the_processs_own_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_SLM__MQTT__HOST", "broker.lan")
    assert load([]).settings.mqtt.host == "broker.lan"
    assert Settings().mqtt.host == "127.0.0.1"


def test_an_override_can_set_null() -> None:
    loaded = load([], ["mqtt.username=null"], {"EDGE_SLM__MQTT__USERNAME": "dev"})
    assert loaded.settings.mqtt.username is None


def test_what_was_sent_from_afar_stands_between_the_files_and_the_environment(write: Write) -> None:
    box = write("box.yaml", "mqtt: {host: box, root: box, port: 1}")
    remote = ("config/desired", b"mqtt: {host: remote, root: remote}")
    mqtt = load([box], (), {"EDGE_SLM__MQTT__ROOT": "variable"}, remote=remote).settings.mqtt
    assert (mqtt.host, mqtt.root, mqtt.port) == ("remote", "variable", 1)


def test_what_was_sent_from_afar_is_named_where_it_is_wrong() -> None:
    with pytest.raises(ConfigError) as caught:
        load([], (), {}, remote=("config/desired", "queue:\n  max_job: 1\nmqtt: {password: hunter2}"))
    typo, secret = caught.value.problems
    assert typo == Problem(
        "unknown key `queue.max_job`; did you mean `queue.max_jobs`?", Origin("config/desired", 2), "queue.max_job"
    )
    assert (secret.key, "hunter2" in str(secret)) == ("mqtt.password", False)


def test_the_keys_that_a_text_sets_are_known_with_their_lines() -> None:
    text = "cameras:\n  porch:\n    detail: low\nmodels: {text: null}\nqueue:\n"
    assert {key: origin.line for key, origin in said("x", text).items()} == {
        "cameras.porch.detail": 3,
        "models.text": 4,
        "queue": 5,
    }


def test_a_text_with_unknown_keys_sets_none() -> None:
    with pytest.raises(ConfigError, match="x:2: unknown key `que`"):
        said("x", "metrics_s: 1\nque: 1")


# What `json.dumps` makes of an emoji is no YAML.
@pytest.mark.parametrize("text", ['{"pool": "a"}', '{"cameras": {"c": {"prompt": "\\ud83d\\ude00?"}}, "pool": "a"}'])
def test_json_is_read_as_well(text: str) -> None:
    settings = load([], (), {}, remote=("x", text)).settings
    assert (settings.pool, [each.prompt for each in settings.cameras.values()]) in [("a", []), ("a", ["\U0001f600?"])]


@pytest.mark.parametrize(
    "text", ["[" * 65_536, "- " * 32_768, "{a: " * 20_000, '{"a": "\\ud83d", "b": ' + "[" * 60_000]
)
def test_deep_nesting_is_told_and_not_followed(text: str) -> None:
    with pytest.raises(ConfigError, match=r"(is nested deeper than any key is|not YAML: .*)$"):
        said("x", text)


def test_the_configuration_shown_is_the_configuration(write: Write) -> None:
    said = write("box.yaml", "device: {id: 007, groups: [no]}\nmqtt: {tls: {ca_file: é.pem}}\nmetrics_s: 1.5")
    loaded = load([said], (), {})
    assert load([write("shown.yaml", show(loaded))], (), {}).settings == loaded.settings


def test_secrets_are_masked_when_shown() -> None:
    shown = show(load([], (), {"EDGE_SLM__MQTT__PASSWORD": "hunter2"}))
    assert "hunter2" not in shown
    assert yaml.safe_load(shown)["mqtt"]["password"] == "**********"  # noqa: S105


def test_an_unknown_key_is_told_with_its_line_and_the_nearest(write: Write) -> None:
    lab = write("lab.yaml", "mqtt:\n  port: 1883\n  hsot: x\n")
    assert problems(lab) == ["lab.yaml:3: unknown key `mqtt.hsot`; did you mean `mqtt.host`?"]


def test_a_key_at_the_wrong_place_is_told_its_place(write: Write) -> None:
    assert problems(write("lab.yaml", "host: x")) == ["lab.yaml:1: unknown key `host`; did you mean `mqtt.host`?"]


def test_a_key_like_no_other_is_told_without_a_guess(write: Write) -> None:
    assert problems(write("lab.yaml", "zzz: x")) == ["lab.yaml:1: unknown key `zzz`"]


def test_an_unknown_variable_is_told() -> None:
    assert problems(environ={"EDGE_SLM__MQTT__HSOT": "x", "EDGE_SLM__": "y"}) == [
        "EDGE_SLM__: unknown key ``",
        "EDGE_SLM__MQTT__HSOT: unknown key `mqtt.hsot`; did you mean `mqtt.host`?",
    ]


def test_an_unknown_override_is_told() -> None:
    assert problems(overrides=("mqtt.hsot=x", "mqtt.host")) == [
        "command line: unknown key `mqtt.hsot`; did you mean `mqtt.host`?",
        "command line: `mqtt.host` should have the form key=value",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mqtt: {port: 99999}", "`mqtt.port` should be less than or equal to 65535, not `99999`"),
        ("mqtt: {port: yes}", "`mqtt.port` should be a valid integer, not `yes`"),
        ("mqtt: {port: }", "`mqtt.port` should be a valid integer"),
        ("mqtt: {port: [1]}", "`mqtt.port` should be a single value"),
        ("mqtt: 5", "`mqtt` should be keys with values"),
        ("device: {groups: lab}", "`device.groups` should be a list"),
        ("log: {level: loud}", "`log.level` should be 'debug', 'info', 'warning' or 'error', not `loud`"),
        ("mqtt: {tls:\n  {key_file: k}}", "`mqtt.tls`: cert_file and key_file go together"),
        ("cloud: {enabled: true}", "`cloud`: an enabled cloud needs text_model, vision_model, or both"),
        (
            "cloud: {budget: {camera: {day: {money: 1}}}}",
            "`cloud`: a budget of money needs a price: set price.prompt and price.completion",
        ),
        ("metrics_s: 0.01", "`metrics_s` should be greater than or equal to 0.1, not `0.01`"),
        ("metrics_s: inf", "`metrics_s` should be a finite number, not `inf`"),
        ("drain_s: inf", "`drain_s` should be a finite number, not `inf`"),
        ("drain_s: 4000", "`drain_s` should be less than or equal to 3600, not `4000`"),
        ("engine: {threads: 2000}", "`engine.threads` should be less than or equal to 1024, not `2000`"),
        ("device: {groups: [a, b c]}", "`device.groups.1` should match pattern '^[A-Za-z0-9_-]{1,64}$', not `b c`"),
    ],
)
def test_a_wrong_value_is_told_with_its_line_and_what_was_expected(write: Write, text: str, sentence: str) -> None:
    assert problems(write("lab.yaml", f"\n{text}")) == [f"lab.yaml:2: {sentence}"]


def test_a_wrong_value_is_told_of_whoever_set_it_last(write: Write) -> None:
    lab = write("lab.yaml", "engine: {slots: 2}")
    assert problems(lab, environ={"EDGE_SLM__ENGINE__SLOTS": "0"}) == [
        "EDGE_SLM__ENGINE__SLOTS: `engine.slots` should be greater than or equal to 1, not `0`"
    ]


def test_a_key_set_twice_is_told(write: Write) -> None:
    assert problems(write("lab.yaml", "queue:\n  max_jobs: 1\n  max_jobs: 2\n")) == [
        "lab.yaml:3: `queue.max_jobs` is already set in line 2"
    ]


def test_a_secret_in_a_file_or_on_the_command_line_is_refused_and_not_repeated(write: Write) -> None:
    lab = write("lab.yaml", "mqtt: {password: hunter2}")
    told = (
        "`mqtt.password` is a secret, which too many can read here; "
        "set `mqtt.password_file`, or EDGE_SLM__MQTT__PASSWORD"
    )
    assert problems(lab, overrides=("mqtt.password=hunter2",)) == [f"lab.yaml:1: {told}", f"command line: {told}"]


def test_a_pool_with_the_boxs_own_name_is_refused(write: Write) -> None:
    with pytest.raises(ConfigError, match=r"box.yaml:2: `pool`: this is the box's own name"):
        load([write("box.yaml", "device: {id: barn}\npool: barn\n")], (), {})


def test_a_missing_file_is_told() -> None:
    assert problems(Path("/nowhere/box.yaml")) == [
        "/nowhere/box.yaml: cannot be read (No such file or directory); check its name and owner"
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mqtt:\n  host: [a\n", "lab.yaml:3: not YAML: did not find expected ',' or ']'"),
        ("- a\n- b\n", "lab.yaml:1: should be keys with values, as in `mqtt: {host: broker.lan}`"),
        ("a: &a {b: *a}\n", "lab.yaml:1: unknown key `a`"),
        ("? [a]\n: b\n", "lab.yaml:1: unknown key `?`"),
    ],
)
def test_what_is_no_configuration_is_told(write: Write, text: str, sentence: str) -> None:
    assert problems(write("lab.yaml", text)) == [sentence]


def test_bytes_that_are_no_text_are_told(write: Write) -> None:
    lab = write("lab.yaml", "")
    lab.write_bytes(b"mqtt: {host: \xff}")
    (only,) = problems(lab)
    assert only.startswith("lab.yaml: not YAML: ")


def test_all_problems_are_told_at_once(write: Write) -> None:
    lab = write("lab.yaml", "mqtt: {hsot: x, port: 0}\nlog: {level: loud}\n")
    told = problems(lab, Path("missing.yaml"), environ={"EDGE_SLM__X": "1"})
    assert [sentence.split(" ")[0] for sentence in told] == [
        "lab.yaml:1:",
        "missing.yaml:",
        "EDGE_SLM__X:",
        "lab.yaml:1:",
        "lab.yaml:2:",
    ]


def test_of_very_many_problems_the_first_twenty_are_told(write: Write) -> None:
    lab = write("lab.yaml", "".join(f"zzz{n}: 1\n" for n in range(2000)))
    assert problems(lab) == [f"lab.yaml:{n + 1}: unknown key `zzz{n}`" for n in range(20)]


def test_of_very_many_wrong_values_the_first_twenty_are_told(write: Write) -> None:
    lab = write("lab.yaml", "cameras:\n" + "".join(f"  c{n}: {{priority: 1}}\n" for n in range(30)))
    assert len(problems(lab)) == 20


@pytest.mark.parametrize(
    "text",
    [
        "log: {level: %s}",
        "%s: 1",
        "cameras: {c: {%s: 1}}",
        "cameras: {%s: 1}",
        "cameras: {%s: {detial: low}}",
        "a: *%s",
    ],
)
def test_of_a_very_long_text_the_beginning_is_told(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load([], (), {}, remote=("x", text % ("y" * 5000)))
    (problem,) = caught.value.problems
    assert len(str(problem)) + len(problem.key or "") < 500
