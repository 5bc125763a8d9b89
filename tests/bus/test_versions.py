import pytest

from agent.bus.versions import VersionChoice


def test_mqtt_5_is_tried_first() -> None:
    assert VersionChoice("auto").version == "5"


def test_versions_take_turns_while_neither_works() -> None:
    choice = VersionChoice("auto")
    tried = []
    for _ in range(4):
        tried.append(choice.version)
        choice.suspected()

    assert tried == ["5", "3.1.1", "5", "3.1.1"]


def test_what_worked_survives_a_broker_that_restarts() -> None:
    choice = VersionChoice("auto")
    choice.worked()
    choice.suspected()
    choice.suspected()

    assert choice.version == "5"


def test_what_worked_is_given_up_when_it_keeps_failing() -> None:
    choice = VersionChoice("auto")
    choice.worked()
    for _ in range(3):
        choice.suspected()

    assert choice.version == "3.1.1"


def test_a_refusal_is_believed_at_once() -> None:
    choice = VersionChoice("auto")
    choice.worked()
    choice.refused()

    assert choice.version == "3.1.1"


@pytest.mark.parametrize("pinned", ["5", "3.1.1"])
def test_a_configured_version_is_kept(pinned: str) -> None:
    choice = VersionChoice(pinned)  # type: ignore[arg-type]
    choice.refused()
    choice.suspected()

    assert choice.version == pinned
