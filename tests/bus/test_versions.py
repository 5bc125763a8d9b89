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
    choice.ended()
    choice.suspected()
    choice.suspected()

    assert choice.version == "5"


def test_mqtt_5_is_given_up_when_it_keeps_failing() -> None:
    choice = VersionChoice("auto")
    choice.ended()

    assert tried(choice, 4)[-1] == "3.1.1"


def test_after_a_mere_suspicion_mqtt_5_is_tried_again_once_at_each_connection() -> None:
    choice = VersionChoice("auto")
    tried(choice, 3)
    choice.ended()  # of 3.1.1, which worked

    assert tried(choice, 2) == ["5", "3.1.1"]


def test_a_refusal_is_believed_at_once_and_stays_so() -> None:
    choice = VersionChoice("auto")
    choice.refused()
    choice.ended()

    assert choice.version == "3.1.1"


@pytest.mark.parametrize("pinned", ["5", "3.1.1"])
def test_a_configured_version_is_kept(pinned: str) -> None:
    choice = VersionChoice(pinned)  # type: ignore[arg-type]
    choice.refused()
    choice.suspected()
    choice.ended()

    assert choice.version == pinned
