import os
import threading
from collections.abc import Iterator

import pytest

from agent.engines.wire import Cancel, Submit, encode
from agent.engines.worker import pipe as pipe_module
from agent.engines.worker.pipe import Pipe


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Give the end of a pipe into which a parent writes, and from which `Pipe` reads."""
    theirs, ours = os.pipe()
    monkeypatch.setattr(os, "dup", lambda _: theirs)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    yield ours
    os.close(theirs)


def test_a_frame_that_has_begun_is_read_to_its_end(parent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe_module, "_REST_S", 10.0)
    pipe = Pipe()
    large = Submit(1, payload=bytes(8 << 20))
    writing = threading.Thread(target=lambda: os.write(parent, encode(large)))
    writing.start()

    assert pipe.receive(wait=True) == [large]
    writing.join()


def test_the_rest_of_a_frame_is_not_waited_for_for_ever(parent: int) -> None:
    pipe = Pipe()
    frame = encode(Cancel(1))
    os.write(parent, frame[:5])
    assert pipe.receive(wait=True) == []
    os.write(parent, frame[5:])

    assert pipe.receive(wait=False) == [Cancel(1)]


def test_a_parent_that_is_gone_is_told(parent: int) -> None:
    pipe = Pipe()
    os.close(parent)

    assert pipe.receive(wait=True) is None
