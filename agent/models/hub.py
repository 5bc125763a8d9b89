"""Fetching a folder of a repository from Hugging Face, or from whoever speaks its protocol.

huggingface_hub knows the endpoint, the token, the proxies and what a refusal means. Its downloads, though, begin anew
after an interruption (2.4: `file_download._download_to_tmp_and_move` throws away what there is, lest two processes
write one file where locks do not work). Over a barn's link 2.7 GB never arrive that way. Here one process at a time
pulls into a store, so the bytes are asked for from where the last attempt ended, and checked when all are there. They
come by plain HTTP: the hub's other way, Xet, does not go on either, and a proxy cannot keep what it has fetched.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import httpx2
from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError

from agent import __version__
from agent.models.catalogue import HubFolder, ModelError
from agent.models.hub_troubles import CutError, no_hub, pause, told
from agent.models.installing import check_space
from agent.models.store import is_hidden

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# As HF_HUB_DISABLE_TELEMETRY=1 does, which is read when the library is imported. Else it tells with each request what
# is installed here, asks for a list of AI agents to look for in the environment, and writes that to the user's home.
constants.HF_HUB_DISABLE_TELEMETRY = True

T = TypeVar("T")

# A stalled connection is given up after so long, and a new one asks for the rest.
_TIMEOUT_S = 30.0
# After failures one upon the other, in between which not a byte came.
_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
# What has arrived of one is lost when the connection is.
_CHUNK = 64 << 10
_BLOCK = 1 << 20
# For the manifest and the file system's own.
_SPARE = 10_000_000


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file, and how it is known that it is the right one."""

    name: str
    bytes: int
    sha256: str | None
    blob: str | None
    """Git's own name for its content, which is what the hub tells of small files."""


class Fetch:
    """One folder, on its way into a folder of this disk, which may hold some of it already.

    Args:
        name: the model's, for what is said about it.
        source: where it comes from.
        folder: where it goes, on the store's disk.
        report: is told the progress, as `pull` tells it.

    """

    def __init__(
        self, name: str, source: HubFolder, folder: Path, report: Callable[[str, int, int | None], None]
    ) -> None:
        self._name = name
        self._source = source
        self._folder = folder
        self._report = report
        # Read now: huggingface_hub reads it once for all, when it is imported.
        self._endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        # Bytes are asked for as they lie there, so that a range of them means something.
        self._headers = {"Accept-Encoding": "identity", "User-Agent": f"edge-slm-agent/{__version__}"}
        if token := get_token():
            self._headers["Authorization"] = f"Bearer {token}"

    def run(self, installed: Path) -> dict[str, str]:
        """Fetch what is missing, and check all of it; return each file's SHA-256.

        Args:
            installed: the model as it is in the store now, perhaps damaged: what is right there is not fetched again.

        Raises:
            ModelError: with what to do. What was fetched stays, but for a file that turned out to be a wrong one.

        """
        with told(self._endpoint, self._source):
            wanted = self._listed()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._drop_all_but(wanted)
            for file in wanted:
                self._adopt(file, installed / file.name)
            missing = sum(max(0, file.bytes - _size(self._folder / file.name)) for file in wanted)
            if missing:
                check_space(self._name, missing + _SPARE, installed.parent)
            self._download(wanted)
        return self._checked(wanted)

    def _listed(self) -> list[_Wanted]:
        """Ask the hub for the folder's files."""
        source = self._source
        ask = partial(HfApi(endpoint=self._endpoint).model_info, source.repository, revision=source.revision)
        try:
            model = self._patiently(partial(ask, files_metadata=True, timeout=_TIMEOUT_S))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise no_hub(self._endpoint) from error
        found = {}
        for each in model.siblings or ():
            path = PurePosixPath(each.rfilename)
            if path.is_relative_to(source.folder) and each.size is not None:
                sha256 = each.lfs.sha256 if each.lfs else None
                name = str(path.relative_to(source.folder))
                found[name] = _Wanted(name, each.size, sha256, each.blob_id)
        names = source.files or {name: None for name in found if not is_hidden(PurePosixPath(name))}
        where = f"{source.folder} of {source.repository} at {source.revision[:7]}"
        if missing := [name for name in names if name not in found]:
            raise ModelError(f"{self._endpoint} has no {missing[0]} in {where}: correct the catalogue's entry")
        if not names:
            raise ModelError(f"{self._endpoint} has nothing in {where}: correct the catalogue's entry")
        return [self._known(found[name], known) for name, known in names.items()]

    def _known(self, file: _Wanted, known: str | None) -> _Wanted:
        """Hold what the hub tells of a file against what is known of it, before gigabytes are fetched for nothing."""
        if known and file.sha256 and known != file.sha256:
            raise ModelError(
                f"{self._endpoint} has another {file.name} than the one that the catalogue knows (its SHA-256 "
                "differs): ask whoever runs it, and do not use that file"
            )
        sha256 = known or file.sha256
        if not (sha256 or file.blob):
            raise ModelError(
                f"{self._endpoint} tells no hash of {file.name}, so it could not be checked: set HF_ENDPOINT to another"
            )
        return _Wanted(file.name, file.bytes, sha256, file.blob)

    def _drop_all_but(self, wanted: Sequence[_Wanted]) -> None:
        """Delete what an earlier attempt fetched for a catalogue that has changed since."""
        places = {self._folder / file.name for file in wanted}
        for path in self._folder.rglob("*"):
            if path.is_file() and path not in places:
                path.unlink()

    def _adopt(self, file: _Wanted, installed: Path) -> None:
        """Take over a file of the installed model that is right, without a copy."""
        place = self._folder / file.name
        if not place.exists() and _size(installed) == file.bytes and _is_it(file, *_digests(installed)):
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):  # a card's file system may have no hard links: it is fetched, then
                os.link(installed, place)

    def _download(self, wanted: Sequence[_Wanted]) -> None:
        total = sum(file.bytes for file in wanted)
        before = 0
        for file in wanted:
            place = self._folder / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if _size(place) > file.bytes:
                place.unlink()
            if _size(place) < file.bytes or not place.exists():
                done = before
                self._patiently(lambda: self._go_on(file, place, done, total), lambda: _size(place))  # noqa: B023
            before += file.bytes

    def _go_on(self, file: _Wanted, place: Path, before: int, total: int) -> None:
        """Ask once for what is missing of a file."""
        source = self._source
        url = hf_hub_url(
            source.repository, f"{source.folder}/{file.name}", revision=source.revision, endpoint=self._endpoint
        )
        have = _size(place)
        headers = {**self._headers, **({"Range": f"bytes={have}-"} if have else {})}
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
            hf_raise_for_status(response)
            # Whoever does not know ranges sends all of it again.
            have = have if response.status_code == httpx2.codes.PARTIAL_CONTENT else 0
            # A network's login page must not take the place of 2 GB that are here already. Who has files tells how
            # long they are; a page that is made for the moment often goes without.
            if response.headers.get("Content-Length") != str(file.bytes - have) or _start(response) != have:
                raise no_hub(self._endpoint)
            with place.open("ab" if have else "wb") as out:
                for chunk in response.iter_bytes(_CHUNK):
                    if out.tell() + len(chunk) > file.bytes:
                        raise no_hub(self._endpoint)
                    out.write(chunk)
                    self._report("downloading", before + out.tell(), total)
        if _size(place) < file.bytes:
            raise CutError

    def _patiently(self, attempt: Callable[[], T], size: Callable[[], int] = lambda: 0) -> T:
        """Attempt something again where that may help, as long as it gets on."""
        pauses, before = iter(_PAUSES_S), size()
        while True:
            try:
                return attempt()
            except (HfHubHTTPError, httpx2.TransportError, CutError) as error:
                if size() > before:
                    pauses, before = iter(_PAUSES_S), size()
                wait = pause(error, next(pauses, None))
                if wait is None:
                    raise
            self._report("waiting", 0, None)
            time.sleep(wait)

    def _checked(self, wanted: Sequence[_Wanted]) -> dict[str, str]:
        total, before, digests = sum(file.bytes for file in wanted), 0, {}
        for file in wanted:
            place = self._folder / file.name
            sha256, blob = _digests(place)
            if not _is_it(file, sha256, blob):
                place.unlink()
                raise ModelError(
                    f"{file.name} arrived damaged (its hash differs from the one that is known) and was deleted: pull "
                    "again, and if it happens again, ask whoever runs the network or the mirror"
                )
            digests[file.name] = sha256
            before += file.bytes
            self._report("checking", before, total)
        return digests


def _start(response: httpx2.Response) -> int:
    """Tell which of the file's bytes an answer's first one is."""
    told = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(told[1]) if told else 0


def _digests(path: Path) -> tuple[str, str]:
    """Compute a file's SHA-256 and git's name for its content."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_BLOCK):
            sha256.update(chunk)
            blob.update(chunk)
    return sha256.hexdigest(), blob.hexdigest()


def _is_it(file: _Wanted, sha256: str, blob: str) -> bool:
    return sha256 == file.sha256 if file.sha256 else blob == file.blob


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
