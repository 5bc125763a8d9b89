"""A model hub on this machine, as far as a download sees one: it lists a commit's files, and a CDN has the large ones.

As Hugging Face does it, of what matters here: ``/api/models/{repository}/revision/{commit}`` tells sizes, LFS hashes
and git's names; ``/{repository}/resolve/{commit}/{path}`` sends small files itself, and for large ones to another host,
with ``X-Linked-Etag`` and ``X-Linked-Size``; errors are told in ``X-Error-Code``. Xet is not offered.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from agent.models.catalogue import Entry, HubFolder, Variant

REPOSITORY = "maker/tiny-onnx"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FOLDER = "cpu_and_mobile/int4"
# Above it a file is LFS's here, and the CDN's.
LARGE = 10_000


@dataclass
class Asked:
    """A request, and what of its answer's body was sent."""

    method: str
    host: str
    path: str
    range: str | None
    authorization: str | None
    sent: int = 0


@dataclass
class Trouble:
    """What happens to requests whose path ends in a name, so many times.

    Attributes:
        status: answered instead of the file.
        headers: with it, or with the file over its own.
        page: sent in place of the file, in chunks, so that its length is not told.
        cut_after: bytes of the body after which the connection is reset.
        hold_after: bytes of the body after which it waits for `released`, having set `held`.

    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    page: bytes | None = None
    cut_after: int | None = None
    hold_after: int | None = None
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class Hub:
    """The hub and its CDN, on two ports.

    Args:
        files: of the model's folder, by their names.

    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[Asked] = []
        self.token: str | None = None
        self.ranges = True
        self.redirect = "absolute"
        self.troubles: dict[str, deque[Trouble]] = {}
        # What is sent in place of a file, where that is another one than is told.
        self.sent_instead: dict[str, bytes] = {}
        self._servers: list[ThreadingHTTPServer] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def __enter__(self) -> Self:
        self._servers = [_server(self, cdn=False), _server(self, cdn=True)]
        for server in self._servers:
            # A test's end waits as long as this.
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for troubles in self.troubles.values():
            for trouble in troubles:
                trouble.released.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def trouble(self, name: str, *troubles: Trouble) -> None:
        """Let the next requests for what ends in a name go wrong, one after the other."""
        self.troubles[name] = deque(troubles)

    def bodies(self, name: str) -> list[tuple[str | None, int]]:
        """Return the ranges that were asked of a file, and what was sent of each."""
        return [
            (each.range, each.sent)
            for each in self.asked
            if each.method == "GET" and each.path.endswith(f"/{name}") and each.sent
        ]

    def known(self, **hashes: str | None) -> dict[str, Entry]:
        """Make a catalogue with the model; all its hashes are known, but as they are given."""
        digests: dict[str, str | None] = {name: sha256(content) for name, content in self.files.items()}
        source = HubFolder(REPOSITORY, COMMIT, FOLDER, digests | hashes)
        size = sum(map(len, self.files.values()))
        variants = {"cpu": Variant(size, 2 * size, source)}
        return {"tiny": Entry("tiny", "Tiny", "0BSD", ("text",), context=4096, variants=variants)}

    def listing(self) -> dict[str, Any]:
        """Tell of the commit what the hub's API tells."""
        siblings = [
            {
                "rfilename": f"{FOLDER}/{name}",
                "size": len(content),
                "blobId": blob(content),
                **({"lfs": _lfs(content)} if len(content) > LARGE else {}),
            }
            for name, content in self.files.items()
        ]
        readme = {"rfilename": "README.md", "size": 3, "blobId": blob(b"Hi\n")}
        return {"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": [readme, *siblings]}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob(content: bytes) -> str:
    """Name a content as git does."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _lfs(content: bytes) -> dict[str, object]:
    return {"sha256": sha256(content), "size": len(content), "pointerSize": 134}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    cdn: bool
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        # A proxy is asked with the whole URL.
        hub = self.hub
        path = unquote(urlsplit(self.path).path)
        headers = self.headers
        asked = Asked(self.command, headers["Host"], path, headers["Range"], headers["Authorization"])
        hub.asked.append(asked)
        troubles = next((all_ for name, all_ in hub.troubles.items() if all_ and path.endswith(name)), deque())
        trouble = troubles.popleft() if troubles else Trouble()
        if trouble.status:
            self._say(trouble.status, trouble.headers)
        elif trouble.page is not None:
            self._say_in_chunks(trouble.page)
        elif not self.cdn and hub.token and headers["Authorization"] != f"Bearer {hub.token}":
            self._say(401, {"X-Error-Code": "GatedRepo"})
        elif path == f"/api/models/{REPOSITORY}/revision/{COMMIT}":
            self._say(200, {"Content-Type": "application/json"}, json.dumps(hub.listing()).encode())
        elif path.startswith("/api/models/"):
            code = "RevisionNotFound" if REPOSITORY in path else "RepoNotFound"
            self._say(404, {"X-Error-Code": code})
        else:
            self._send(path, asked, trouble)

    def _send(self, path: str, asked: Asked, trouble: Trouble) -> None:
        name = path.rpartition(f"{FOLDER}/")[2]
        content = self.hub.files.get(name)
        if content is None:
            return self._say(404, {"X-Error-Code": "EntryNotFound"})
        large, elsewhere = len(content) > LARGE, path.startswith("/cdn/")
        told = {"X-Repo-Commit": COMMIT}
        if large and not elsewhere:
            place = f"/cdn/{FOLDER}/{name}"
            told |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            return self._say(
                302, {**told, "Location": place if self.hub.redirect == "relative" else f"{self.hub.cdn}{place}"}
            )
        return self._body(
            self.hub.sent_instead.get(name, content), {**told, "ETag": f'"{blob(content)}"'}, asked, trouble
        )

    def _body(self, content: bytes, told: dict[str, str], asked: Asked, trouble: Trouble) -> None:
        status, start = 200, 0
        if self.hub.ranges and asked.range:
            status, start = 206, int(asked.range.removeprefix("bytes=").rstrip("-"))
            told = {**told, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        rest = content[start:]
        self.send_response(status)
        for key, value in {**told, "Content-Length": str(len(rest)), **trouble.headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for end in sorted({min(each, len(rest)) for each in (trouble.cut_after, trouble.hold_after) if each}):
            self.wfile.write(rest[asked.sent : end])
            asked.sent = end
            if end == trouble.cut_after:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            trouble.held.set()
            trouble.released.wait(20)
        try:
            self.wfile.write(rest[asked.sent :])
            asked.sent = len(rest)
        except ConnectionError:  # whoever was held is dead
            self.close_connection = True

    def _say(self, status: int, told: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in {**told, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _say_in_chunks(self, page: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(page), page))


def _server(hub: Hub, *, cdn: bool) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"hub": hub, "cdn": cdn})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    return server
