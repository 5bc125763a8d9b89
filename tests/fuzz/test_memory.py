"""What the live fuzz says of memory: what grows is found, what comes and goes is not."""

from collections.abc import Callable

from tests.fuzz.memory import Sample, growth

_MB = 1_000_000


def found(level: Callable[[int], float], count: int = 120_000) -> list[str]:
    """Judge twenty samples, of which each is at its level."""
    steps = [count * step // 20 for step in range(21)]
    return growth([Sample(sent, round(level(sent))) for sent in steps])


def test_memory_that_comes_and_goes_is_no_growth() -> None:
    assert found(lambda sent: 50 * _MB + (sent // 6000 % 2) * 30 * _MB) == []


def test_what_grows_in_the_first_fifth_is_warming_up() -> None:
    assert found(lambda sent: 50 * _MB + min(sent, 24_000) * 2000) == []


def test_growth_is_found_beneath_one_high_sample_in_the_first_half() -> None:
    (least, middle) = found(lambda sent: 90 * _MB if sent == 30_000 else 50 * _MB + 5 * _MB * (sent > 72_000))
    assert least == "the agent's least memory at rest grew from 50,000,000 to 55,000,000 bytes"
    assert middle.startswith("the agent's median memory")


def test_bursts_that_become_higher_are_found() -> None:
    found_ = found(lambda sent: 50 * _MB + (sent in (48_000, 96_000)) * sent * 100)
    assert found_[0] == "the agent's most memory at rest grew from 54,800,000 to 59,600,000 bytes"


def test_thirty_bytes_a_message_are_found() -> None:
    assert found(lambda sent: 100 * _MB + 30 * sent) == ["the agent's memory at rest grows by 30 bytes a message"]


def test_too_few_messages_are_no_proof_of_growth() -> None:
    assert found(lambda sent: 50 * _MB + 2000 * sent, count=14_000) == []
