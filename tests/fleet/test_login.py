"""The broker that an operator speaks with, and as whom."""

from pathlib import Path

from agent.fleet import operators
from agent.settings import Tls

CONFIGS = Path(__file__).parents[2] / "configs"
OWN = {"EDGE_SLM__MQTT__USERNAME": "op", "EDGE_SLM__MQTT__PASSWORD": "x"}


def test_the_broker_is_the_fleets_and_the_login_is_the_operators() -> None:
    mqtt = operators(CONFIGS, [], [], OWN)
    assert (mqtt.host, mqtt.port, mqtt.username) == ("broker.fleet.example", 8883, "op")
    assert (mqtt.password is not None, mqtt.password_file) == (True, None)


def test_what_the_boxes_have_for_themselves_is_not_looked_for(tmp_path: Path) -> None:
    tls = "{ca_file: /ca.pem, cert_file: /box.pem, key_file: /box.key}"
    (tmp_path / "base.yaml").write_text(f"mqtt: {{root: farm, username: boxes, tls: {tls}}}")
    mqtt = operators(tmp_path, [], [], {})
    assert (mqtt.root, mqtt.username, mqtt.tls) == ("farm", None, Tls(ca_file=Path("/ca.pem")))


def test_the_operators_file_goes_over_the_fleets_and_the_command_line_over_both(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("mqtt: {host: base, port: 1}")
    own = tmp_path / "own.yaml"
    own.write_text("mqtt: {host: own, port: 2, username: op}")
    mqtt = operators(tmp_path, [own], ["mqtt.port=3"], {})
    assert (mqtt.host, mqtt.port, mqtt.username) == ("own", 3, "op")


def test_tls_that_the_base_takes_away_stays_away(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("mqtt: {tls: null}")
    assert operators(tmp_path, [], [], {}).tls is None
