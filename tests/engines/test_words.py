import pytest

from agent.engines.worker.words import Words


class FakeStream:
    """Every token is a piece of text."""

    def __init__(self, *pieces: str) -> None:
        self._pieces = pieces

    def decode(self, token: int) -> str:
        return self._pieces[token]


@pytest.mark.parametrize(
    ("adds_space", "pieces", "text"),
    [
        (True, (" The", " river"), "The river"),
        (True, ("", " 日"), "日"),
        (True, ("\n", " x"), "\n x"),
        (False, (" The", " river"), " The river"),
    ],
)
def test_only_the_space_that_the_tokenizer_adds_before_a_text_is_dropped(
    adds_space: bool, pieces: tuple[str, ...], text: str
) -> None:
    words = Words(FakeStream(*pieces), adds_space=adds_space)

    assert "".join(words.add(token) for token in range(len(pieces))) == text
