"""Finding a host's addresses, with patience of our own."""

import socket

from agent.threads import begun


def look_up(host: str, patience_s: float) -> None:
    """Find a host's addresses.

    Raises:
        OSError: it has none, or nobody answered in so many seconds; the resolver itself would ask for ten and more.

    """
    try:
        begun(lambda: socket.getaddrinfo(host, None)).result(patience_s)
    except TimeoutError:
        raise socket.gaierror(socket.EAI_AGAIN, "no answer from the name server") from None
