import pytest

from agent.bus.versions import VersionChoice


def tried(choice: VersionChoice, count: int) -> list[str]:
    """Return which versions are tried while none works."""
    versions: list[str] = []
    for _ in range(count):
        versions.append(choice.version)
        choice.suspected()
    return versions


def test_mqtt_5_is_tried_first() -> None:
    assert VersionChoice("auto").version == "5"


def test_versions_take_turns_while_neither_works() -> None:
    assert tried(VersionChoice("auto"), 5) == ["5", "5", "5", "3.1.1", "5"]


def test_a_link_that_is_cut_twice_does_not_cost_mqtt_5() -> None:
    choice = VersionChoice("auto")
    choice.suspected()
    choice.suspected()

    assert choice.version == "5"


def test_what_worked_survives_a_broker_that_restarts() -> None:
    choice = VersionChoice("auto")
    choice.suspected()
    choice.accepted()
    choice.ended()
    choice.suspected()
    choice.suspected()

    assert choice.version == "5"


def test_a_broker_that_was_away_is_asked_for_mqtt_5_as_soon_as_it_answers() -> None:
    choice = VersionChoice("auto")
    tried(choice, 3)

    assert (choice.version, choice.accepted(), choice.version) == ("3.1.1", False, "5")


def test_a_broker_that_answers_3_1_1_and_not_5_is_believed_for_one_connection() -> None:
    choice = VersionChoice("auto")
    tried(choice, 3)
    choice.accepted()
    choice.suspected()
    stayed = (choice.version, choice.accepted())
    choice.ended()

    assert (stayed, choice.version) == (("3.1.1", True), "5")


def test_a_cut_after_a_connection_of_3_1_1_costs_mqtt_5_no_more_than_any() -> None:
    choice = VersionChoice("auto")
    tried(choice, 3)
    choice.accepted()
    choice.suspected()
    choice.ended()
    choice.suspected()

    assert (choice.version, choice.accepted(), choice.version) == ("3.1.1", False, "5")


def test_a_refusal_is_believed_at_once_and_stays_so() -> None:
    choice = VersionChoice("auto")
    choice.refused()
    stayed = choice.accepted()
    choice.ended()

    assert (stayed, choice.version) == (True, "3.1.1")


@pytest.mark.parametrize("pinned", ["5", "3.1.1"])
def test_a_configured_version_is_kept(pinned: str) -> None:
    choice = VersionChoice(pinned)  # type: ignore[arg-type]
    choice.refused()
    choice.suspected()
    stayed = choice.accepted()
    choice.ended()

    assert (stayed, choice.version) == (True, pinned)
