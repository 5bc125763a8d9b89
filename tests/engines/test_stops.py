import itertools

from hypothesis import given
from hypothesis import strategies as st

from agent.engines.worker.stops import StopScanner

_text = st.text("abc", max_size=30)
_stops = st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)


def _oracle(text: str, stops: list[str]) -> tuple[str, bool]:
    """Look a character at a time."""
    for end in range(1, len(text) + 1):
        begun = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if begun:
            return text[: min(begun)], True
    return text, False


def _pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[begin:end] for begin, end in itertools.pairwise(places)]


@given(_text, _stops, st.lists(st.integers(0, 30)))
def test_text_ends_before_the_first_complete_stop_however_it_is_cut(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    scanner = StopScanner(stops)
    shown = "".join(scanner.feed(piece) for piece in _pieces(text, cuts)) + scanner.flush()

    assert (shown, scanner.stopped) == _oracle(text, stops)


@given(_text, _stops, st.lists(st.integers(0, 30)))
def test_nothing_is_shown_that_could_still_become_a_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    scanner = StopScanner(stops)
    seen = shown = ""
    for piece in _pieces(text, cuts):
        seen += piece
        shown += scanner.feed(piece)
        for stop in [] if scanner.stopped else stops:
            rest = [stop[n:] for n in range(1, len(stop)) if seen.endswith(stop[:n])]
            for ending in rest:
                assert _oracle(seen + ending, stops)[0].startswith(shown)


def test_text_that_is_no_part_of_a_stop_is_shown_at_once() -> None:
    scanner = StopScanner(["END"])

    assert [scanner.feed(piece) for piece in ("one E", "N", "two")] == ["one ", "", "ENtwo"]


def test_nothing_is_shown_after_a_stop() -> None:
    scanner = StopScanner(["."])
    scanner.feed("One. ")

    assert scanner.feed("Two") + scanner.flush() == ""
