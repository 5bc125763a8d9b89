"""The worker's ends of the two pipes."""

import os
import select

from agent.engines.wire import Decoder, Message, encode

# What Linux's pipes hold by default.
_READ = 64 << 10
# A picture is many times what a pipe holds. Were a pipeful read between two native calls each, one of 8 MB would take
# 128 of them, so the rest of a frame is waited for: the parent writes it as soon as there is room. A parent that is
# busy for longer than this, in seconds, is not waited for.
_REST_S = 0.05


class Pipe:
    """Frames from standard input, and to what was standard output.

    Native libraries print. So standard output is moved to a descriptor that they do not know, and what they
    print goes to standard error, which the parent logs.
    """

    def __init__(self) -> None:
        self._in = os.dup(0)
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._decoder = Decoder()

    def receive(self, *, wait: bool) -> list[Message] | None:
        """Return the messages that have come, waiting for some if told so; None when the parent is gone."""
        messages: list[Message] = []
        timeout_s: float | None = None if wait else 0
        while select.select([self._in], [], [], timeout_s)[0]:
            data = os.read(self._in, _READ)
            if not data:
                return None
            messages += self._decoder.feed(data)
            timeout_s = _REST_S if self._decoder.partial else 0
        return messages

    def send(self, message: Message) -> None:
        """Write a message. The parent reads without delay; were it not to, the worker would wait here.

        Raises:
            BrokenPipeError: the parent is gone.

        """
        frame = memoryview(encode(message))
        while frame:
            frame = frame[os.write(self._out, frame) :]
