"""Pulling from a hub, with the real huggingface_hub, in this process."""

from __future__ import annotations

import json
import random
import shutil
import socket
import ssl
import time
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING

import httpx2
import pytest
from huggingface_hub import close_session

from agent.models import ModelError, hub_troubles, installed, pull, verify
from agent.models import hub as fetching
from agent.models.catalogue import HubFolder
from tests.filesystems import small_disk
from tests.models.hub import COMMIT, FOLDER, REPOSITORY, Hub, Trouble, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = {"model": {"type": "phi3", "context_length": 4096, "decoder": {"filename": "model.onnx"}}}
WEIGHTS = random.Random(1).randbytes(1_000_000)
FILES = {
    "genai_config.json": json.dumps(CONFIG).encode(),
    "model.onnx": b"graph" * 4000,
    "model.onnx.data": WEIGHTS,
    "tokenizer.json": b"{}\n",
}
TOTAL = sum(map(len, FILES.values()))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Start a hub that is the only one this machine knows, and be impatient with it."""
    monkeypatch.setattr(fetching, "_PAUSES_S", (0.01, 0.01))
    for name in ("HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", "/nonexistent")
    with Hub(dict(FILES)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub
    close_session()


@contextmanager
def refused(match: str) -> Iterator[None]:
    with pytest.raises(ModelError, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


def test_a_pulled_model_is_whole_and_its_manifest_tells_the_commit(hub: Hub, tmp_path: Path) -> None:
    folder = pull("tiny", tmp_path, known=hub.known())
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"} == FILES
    assert verify("tiny", tmp_path, hub.known()) == []
    source = json.loads((folder / "manifest.json").read_text())["source"]
    told = {"repository": REPOSITORY, "revision": COMMIT, "folder": FOLDER}
    assert source == {"name": "tiny", "provider": "cpu", **told}


def test_nothing_is_left_of_a_download_that_was_installed(hub: Hub, tmp_path: Path) -> None:
    pull("tiny", tmp_path, known=hub.known())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cache", ".lock", "tiny"]
    assert list((tmp_path / ".cache").iterdir()) == []


def test_the_variant_of_another_provider_lies_beside_it(hub: Hub, tmp_path: Path) -> None:
    known = hub.known()
    known = {"tiny": replace(known["tiny"], variants={"cuda": known["tiny"].variants["cpu"]})}
    assert pull("tiny", tmp_path, known=known, provider="cuda") == tmp_path / "tiny@cuda"
    with refused(r"tiny is not to be had for QNN, but for cuda: name one of these with --provider, or leave it out"):
        pull("tiny", tmp_path, known=known, provider="QNN")


def test_progress_is_told_in_bytes_of_the_whole_model(hub: Hub, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    pull("tiny", tmp_path, lambda *each: told.append(each), hub.known())
    downloading = [each[1:] for each in told if each[0] == "downloading"]
    assert downloading == sorted(downloading)
    assert downloading[-1] == (TOTAL, TOTAL)


def test_a_model_that_is_there_is_not_asked_for(hub: Hub, tmp_path: Path) -> None:
    pull("tiny", tmp_path, known=hub.known())
    hub.asked.clear()
    pull("tiny", tmp_path, known=hub.known())
    assert hub.asked == []


def test_a_newer_commit_of_the_catalogue_replaces_the_model_and_fetches_what_is_new(hub: Hub, tmp_path: Path) -> None:
    folder = pull("tiny", tmp_path, known=hub.known())
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(COMMIT, "f" * 40))
    hub.files["tokenizer.json"] = b'{"new": 1}\n'
    hub.asked.clear()
    pull("tiny", tmp_path, known=hub.known())
    assert [name for name in FILES if hub.bodies(name)] == ["tokenizer.json"]
    assert json.loads(manifest.read_text())["source"]["revision"] == COMMIT


def test_a_model_whose_configuration_names_what_the_catalogue_does_not_fetch_is_not_installed(
    hub: Hub, tmp_path: Path
) -> None:
    del hub.files["model.onnx"]
    with refused("^model.onnx, which genai_config.json names, is missing: correct the catalogue's entry of tiny"):
        pull("tiny", tmp_path, known=hub.known())
    assert installed(tmp_path) == []


# Interruptions


def test_a_connection_that_is_cut_is_taken_up_again_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.trouble(f"/cdn/{FOLDER}/model.onnx.data", Trouble(cut_after=400_000), Trouble(cut_after=300_000))
    pull("tiny", tmp_path, known=hub.known())
    (first, second, third) = hub.bodies("model.onnx.data")
    assert first == (None, 400_000)
    # Of what was sent, what had not been written when the connection went is asked for again.
    asked = [int(each[0].removeprefix("bytes=").rstrip("-")) for each in (second, third) if each[0]]
    assert 400_000 - 65_536 <= asked[0] <= 400_000
    assert third == (f"bytes={asked[1]}-", 1_000_000 - asked[1])
    assert verify("tiny", tmp_path, hub.known()) == []


def test_a_connection_that_is_always_cut_at_the_same_place_ends_it_and_the_next_pull_goes_on(
    hub: Hub, tmp_path: Path
) -> None:
    hub.trouble(f"/cdn/{FOLDER}/model.onnx.data", *[Trouble(cut_after=1)] * 9)
    hub.ranges = False
    with refused(r"^the connection to http://.* failed \(.+\): check the network, .* goes on from where it stopped"):
        pull("tiny", tmp_path, known=hub.known())
    assert installed(tmp_path) == []
    hub.ranges = True
    hub.troubles.clear()
    hub.asked.clear()
    pull("tiny", tmp_path, known=hub.known())
    assert hub.bodies("model.onnx") == []
    assert verify("tiny", tmp_path, hub.known()) == []


def test_a_connection_that_is_cut_often_is_taken_up_as_long_as_something_arrives(hub: Hub, tmp_path: Path) -> None:
    hub.trouble(f"/cdn/{FOLDER}/model.onnx.data", *[Trouble(cut_after=150_000)] * 6)
    pull("tiny", tmp_path, known=hub.known())
    assert verify("tiny", tmp_path, hub.known()) == []


def test_what_an_older_catalogue_had_begun_to_fetch_is_dropped(hub: Hub, tmp_path: Path) -> None:
    old = tmp_path / ".cache" / "tiny" / ("f" * 40) / "model.onnx.data"
    other = tmp_path / ".cache" / "tiny" / COMMIT / "model_old.onnx"
    for file in (old, other):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"old")
    hub.trouble("/model.onnx", Trouble(403))
    with refused("refused a part"):
        pull("tiny", tmp_path, known=hub.known())
    assert (old.exists(), other.exists()) == (False, False)


def test_a_server_without_ranges_sends_all_again(hub: Hub, tmp_path: Path) -> None:
    hub.ranges = False
    hub.trouble(f"/cdn/{FOLDER}/model.onnx.data", Trouble(cut_after=400_000))
    pull("tiny", tmp_path, known=hub.known())
    assert [sent for _, sent in hub.bodies("model.onnx.data")] == [400_000, 1_000_000]
    assert verify("tiny", tmp_path, hub.known()) == []


def test_a_login_page_in_place_of_the_rest_does_no_harm_to_what_is_here(hub: Hub, tmp_path: Path) -> None:
    part = tmp_path / ".cache" / "tiny" / COMMIT / "model.onnx.data"
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS[:400_000])
    hub.ranges = False
    hub.sent_instead["model.onnx.data"] = b"<html>please log in</html>"
    with refused("is no model hub: log in where the network asks for it"):
        pull("tiny", tmp_path, known=hub.known())
    assert part.read_bytes() == WEIGHTS[:400_000]


@pytest.mark.parametrize("here", [400_000, 0])
def test_a_login_page_whose_length_is_not_told_is_not_written(hub: Hub, tmp_path: Path, here: int) -> None:
    part = tmp_path / ".cache" / "tiny" / COMMIT / "model.onnx.data"
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS[:here])
    hub.trouble(f"/cdn/{FOLDER}/model.onnx.data", Trouble(page=b"<html>please log in</html>"))
    with refused("is no model hub: log in where the network asks for it"):
        pull("tiny", tmp_path, known=hub.known())
    assert part.read_bytes() == WEIGHTS[:here]


def test_another_part_than_was_asked_for_is_not_written(hub: Hub, tmp_path: Path) -> None:
    part = tmp_path / ".cache" / "tiny" / COMMIT / "model.onnx.data"
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS[:400_000])
    hub.trouble(f"/cdn/{FOLDER}/model.onnx.data", Trouble(headers={"Content-Range": "bytes 0-599999/1000000"}))
    with refused("is no model hub"):
        pull("tiny", tmp_path, known=hub.known())
    assert part.read_bytes() == WEIGHTS[:400_000]


# What is wrong


def test_a_flipped_bit_is_found_and_that_file_alone_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.sent_instead["model.onnx.data"] = bytes([WEIGHTS[0] ^ 1]) + WEIGHTS[1:]
    with refused("^model.onnx.data arrived damaged .* and was deleted: pull again"):
        pull("tiny", tmp_path, known=hub.known())
    assert installed(tmp_path) == []
    hub.sent_instead.clear()
    hub.asked.clear()
    pull("tiny", tmp_path, known=hub.known())
    assert [name for name in FILES if hub.bodies(name)] == ["model.onnx.data"]
    assert verify("tiny", tmp_path, hub.known()) == []


def test_a_small_file_of_which_only_git_knows_the_hash_is_checked_by_that(hub: Hub, tmp_path: Path) -> None:
    known = hub.known(**{"tokenizer.json": None})
    hub.sent_instead["tokenizer.json"] = b"[]\n"
    with refused("^tokenizer.json arrived damaged"):
        pull("tiny", tmp_path, known=known)


def test_a_hub_with_another_file_than_the_catalogue_knows_is_refused_before_anything_is_fetched(
    hub: Hub, tmp_path: Path
) -> None:
    with refused("has another model.onnx.data than the one that the catalogue knows"):
        pull("tiny", tmp_path, known=hub.known(**{"model.onnx.data": sha256(b"other")}))
    assert all(asked.path.startswith("/api/") for asked in hub.asked)


def test_a_file_that_the_hub_lacks_is_told(hub: Hub, tmp_path: Path) -> None:
    known = hub.known(**{"more.onnx": None})
    with refused(f"has no more.onnx in {FOLDER} of {REPOSITORY} at 0123456"):
        pull("tiny", tmp_path, known=known)


def test_only_the_damaged_file_of_an_installed_model_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    folder = pull("tiny", tmp_path, known=hub.known())
    (folder / "model.onnx").write_bytes(b"GRAPH" * 4000)
    hub.asked.clear()
    pull("tiny", tmp_path, known=hub.known())
    assert [name for name in FILES if hub.bodies(name)] == ["model.onnx"]
    assert verify("tiny", tmp_path, hub.known()) == []


def test_a_full_disk_is_told_in_numbers_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        with refused(r"^tiny takes 11 MB more of the disk of .*/disk, which has 8 MB free: free 3 MB, or choose"):
            pull("tiny", disk, known=hub.known())
        assert all(asked.path.startswith("/api/") for asked in hub.asked)


def test_what_is_here_already_needs_no_room_on_the_disk(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / ".cache" / "tiny" / COMMIT / "model.onnx.data"
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS)
    free = fetching._SPARE + TOTAL - len(WEIGHTS)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(free, 0, free))
    pull("tiny", tmp_path, known=hub.known())
    assert verify("tiny", tmp_path, hub.known()) == []


# The way there


@pytest.mark.parametrize("redirect", ["absolute", "relative"])
def test_a_redirect_is_followed_and_another_host_is_not_told_the_token(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redirect: str
) -> None:
    hub.redirect = redirect
    hub.token = "hf_secret"  # noqa: S105
    monkeypatch.setenv("HF_TOKEN", hub.token)
    pull("tiny", tmp_path, known=hub.known())
    elsewhere = [asked for asked in hub.asked if hub.cdn.endswith(asked.host)]
    assert bool(elsewhere) == (redirect == "absolute")
    assert {asked.authorization for asked in elsewhere} <= {None}


def test_a_circle_of_redirects_is_told(hub: Hub, tmp_path: Path) -> None:
    circle = Trouble(302, {"Location": f"/{REPOSITORY}/resolve/{COMMIT}/{FOLDER}/model.onnx"})
    hub.trouble("/model.onnx", *[circle] * 30)
    with refused("sends its requests in a circle"):
        pull("tiny", tmp_path, known=hub.known())


def test_too_many_requests_are_repeated_when_the_hub_says(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    hub.trouble(COMMIT, Trouble(429, {"Retry-After": "7"}))
    hub.trouble("/model.onnx", Trouble(429, {"RateLimit": '"resolvers";r=0;t=55'}), Trouble(503))
    pull("tiny", tmp_path, known=hub.known())
    assert waits == [7, 55, 0.01]


def test_too_many_requests_are_repeated_at_the_time_that_is_told_by_the_servers_clock(
    hub: Hub, tmp_path: Path, waits: list[float]
) -> None:
    told = {"Retry-After": formatdate(time.time() + 60, usegmt=True)}
    hub.trouble(COMMIT, Trouble(429, told))
    pull("tiny", tmp_path, known=hub.known())
    (wait,) = waits
    assert 58 <= wait <= 60


def test_a_wait_of_more_than_five_minutes_is_left_to_the_user(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    hub.trouble(COMMIT, Trouble(429, {"Retry-After": "3600"}))
    with refused("takes no more requests from here: pull again in 3,600 s; with HF_TOKEN it takes more"):
        pull("tiny", tmp_path, known=hub.known())
    assert waits == []


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Take down how long is waited, and do not."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.mark.parametrize(
    ("name", "trouble", "sentence"),
    [
        (COMMIT, Trouble(404, {"X-Error-Code": "RevisionNotFound"}), "has no commit 0123456 of maker/tiny-onnx"),
        (COMMIT, Trouble(404, {"X-Error-Code": "RepoNotFound"}), "shows no repository maker/tiny-onnx"),
        (COMMIT, Trouble(401), r"refused a part of maker/tiny-onnx \(HTTP 401\): set HF_TOKEN"),
        ("/model.onnx", Trouble(403, {"X-Error-Code": "GatedRepo"}), "accept them at .*/maker/tiny-onnx, set HF_TOKEN"),
        ("/model.onnx", Trouble(403), r"refused a part of maker/tiny-onnx \(HTTP 403\): set HF_TOKEN"),
        ("/model.onnx", Trouble(404), r"refused a part of maker/tiny-onnx \(HTTP 404\)"),
        (COMMIT, Trouble(200), "is no model hub"),
    ],
)
def test_what_a_hub_refuses_becomes_one_sentence(
    hub: Hub, tmp_path: Path, name: str, trouble: Trouble, sentence: str
) -> None:
    hub.trouble(name, trouble)
    with refused(sentence):
        pull("tiny", tmp_path, known=hub.known())


def test_a_hub_that_stays_in_trouble_is_left_alone(hub: Hub, tmp_path: Path) -> None:
    hub.trouble(COMMIT, *[Trouble(502)] * 3)
    with refused(r"is in trouble \(HTTP 502\): pull again later"):
        pull("tiny", tmp_path, known=hub.known())


def test_without_a_network_another_way_is_told(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with refused(r"the connection to .* failed \(.*refused\): .*; without a network, use `edge-slm models add`"):
            pull("tiny", tmp_path, known=hub.known())


def test_where_nothing_may_be_fetched_that_is_told(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with refused("^HF_HUB_OFFLINE is set, so nothing may be fetched: unset it, or use `edge-slm models add`"):
        pull("tiny", tmp_path, known=hub.known())
    assert hub.asked == []


def test_a_proxy_is_asked(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.redirect = "relative"
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    close_session()  # a client reads the proxies when it is made
    pull("tiny", tmp_path, known=hub.known())
    assert {asked.host for asked in hub.asked} == {"hub.example"}


def test_a_certificate_that_nobody_here_trusts_is_told_and_not_tried_again() -> None:
    why = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")
    why.verify_message = "self-signed certificate in certificate chain"
    error = httpx2.ConnectError("certificate verify failed")
    error.__cause__ = why
    source = HubFolder(REPOSITORY, COMMIT, FOLDER, {})
    with (
        refused(r"does not trust \(self-signed .* chain\): if a proxy opens"),
        hub_troubles.told("https://hub", source),
    ):
        raise error
    assert hub_troubles.pause(error, 1.0) is None
