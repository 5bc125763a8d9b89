"""From an answer's tokens to its text."""

from typing import Protocol


class Stream(Protocol):
    """The library's incremental detokeniser: it gives a character with the last of its tokens."""

    def decode(self, token: int) -> str:
        """Return the text that this token completes, if any."""


class Words:
    """Turns an answer's tokens into text, whole characters only.

    Tokenizers of the sentencepiece family put a space before the first word of every text, and leave it there
    when an answer is decoded by itself; it is none of the answer's.
    """

    def __init__(self, stream: Stream, *, adds_space: bool) -> None:
        self._stream = stream
        self._drop_space = adds_space

    def add(self, token: int) -> str:
        """Return the text that this token completes; empty within a character of several tokens."""
        text = self._stream.decode(token)
        if self._drop_space and text:
            self._drop_space = False
            return text.removeprefix(" ")
        return text
