"""The worker's ends of the two pipes."""

import os
import select

from agent.engines.wire import Decoder, Message, encode

# What Linux's pipes hold by default.
_READ = 64 << 10


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
        readable, _, _ = select.select([self._in], [], [], None if wait else 0)
        if not readable:
            return []
        data = os.read(self._in, _READ)
        return list(self._decoder.feed(data)) if data else None

    def send(self, message: Message) -> None:
        """Write a message. The parent reads without delay; were it not to, the worker would wait here.

        Raises:
            BrokenPipeError: the parent is gone.

        """
        frame = memoryview(encode(message))
        while frame:
            frame = frame[os.write(self._out, frame) :]
