"""What the doctor's own tests share."""

import contextlib
import socket
from collections.abc import Iterator

import pytest


@pytest.fixture
def behind_a_firewall(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Have every name mean eight addresses of which none ever takes a connection; yield their port."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as queue:
        there = full.getsockname()
        for _ in range(4):  # it takes these, and answers no other
            one = queue.enter_context(socket.socket())
            one.settimeout(0)
            one.connect_ex(there)
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", there)] * 8
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: addresses)
        yield there[1]
