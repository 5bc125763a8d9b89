"""What is told from afar: judged, tried, kept, answered. The supervisor is played here; test_boxes has the real one."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from agent.errors import UserError
from agent.layers import ConfigError, load
from agent.remote import MOST_BYTES, Remote, digest, force, in_force, kept, trying
from agent.settings import Settings

GOOD = b"engine: {slots: 2}\nqueue: {max_jobs: 9}\n"
OTHER = b'{"engine": {"slots": 3}}'


@dataclass
class Ended:
    """How the played supervisor ended a change."""

    state: Literal["applied", "unchanged", "refused", "rolled_back"] = "applied"
    detail: str | None = None


@dataclass
class Far:
    """A box's remote configuration, with a supervisor that runs with whatever it is given."""

    folder: Path
    own: str = "cloud: {}"
    tried: list[Settings] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False

    def __post_init__(self) -> None:
        self.file = self.folder / "box.yaml"
        self.file.write_text(f"device: {{id: box1}}\nstate_dir: {self.folder}/state\n{self.own}\n")
        self.start()

    @property
    def kept(self) -> set[str]:
        """The names of the files on disk."""
        return {each.name for each in (self.folder / "state" / "desired").glob("*")}

    def start(self) -> None:
        """Begin again, as a new process does."""
        self.remote = Remote(partial(load, [self.file], environ={}))

    async def told(self, payload: bytes, ended: Callable[[], Awaitable[Ended]] | Ended | None = None) -> dict[str, Any]:
        """Publish to it, and return what it reports."""
        answered = asyncio.Event()

        async def change(configure: Callable[[], Settings], taken: Callable[[], None]) -> Ended:
            self.tried.append(configure())
            outcome = await ended() if callable(ended) else ended or Ended()
            if outcome.state == "applied":
                taken()
            return outcome

        def report(message: bytes) -> None:
            self.reports.append(json.loads(message))
            answered.set()

        running = asyncio.create_task(self.remote.run(change, report, self.stop))
        self.remote.desired(payload)
        waiting = asyncio.create_task(answered.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        self.ended = not running.cancelled()
        return self.reports[-1] if self.reports else {}


@pytest.fixture
def far(tmp_path: Path) -> Far:
    return Far(tmp_path)


async def test_what_is_published_is_tried_applied_and_reported_by_its_hash(far: Far) -> None:
    report = await far.told(GOOD)
    assert report == {"v": 1, "hash": digest(GOOD), "state": "applied", "refused": [], "detail": None}
    assert (far.tried[0].engine.slots, far.remote.configure().queue.max_jobs) == (2, 9)


async def test_it_holds_across_a_restart(far: Far) -> None:
    await far.told(GOOD)
    far.start()
    assert (far.remote.configure().engine.slots, far.kept) == (2, {"good"})


async def test_it_goes_over_the_files_and_under_the_environment_and_the_command_line(tmp_path: Path) -> None:
    far = Far(tmp_path, "engine: {slots: 7, vision_slots: 7}")
    far.remote = Remote(partial(load, [far.file], ["queue.max_jobs=5"], {}))
    await far.told(GOOD)
    settings = far.remote.configure()
    assert (settings.engine.slots, settings.engine.vision_slots, settings.queue.max_jobs) == (2, 7, 5)


async def test_what_is_applied_already_is_answered_and_left_alone(far: Far) -> None:
    await far.told(GOOD)
    far.start()
    assert (await far.told(GOOD))["state"] == "applied"
    assert len(far.tried) == 1


async def test_an_empty_message_takes_it_away(far: Far) -> None:
    await far.told(GOOD)
    report = await far.told(b"")
    assert (report["state"], report["hash"]) == ("applied", digest(b""))
    far.start()
    assert far.remote.configure().engine.slots == Settings().engine.slots


@pytest.mark.parametrize(
    ("payload", "key", "said"),
    [
        (b"engine: {slot: 2}", "engine.slot", "did you mean `engine.slots`"),
        (b"engine: {slots: many}", "engine.slots", "integer"),
        (b"mqtt: {host: elsewhere}", "mqtt.host", "cannot be set from afar"),
        (b"cloud: {api_key: nvapi-secret}", "cloud.api_key", "secret"),
        (b"engine: {provider_options: {backend_path: /tmp/evil.so}}", "engine.provider_options.backend_path", "afar"),
        (b"models: {text: /etc}", "models.text", "not a folder"),
        (b"cameras: {door: {private: no}}", "cameras.door.private", "only be tightened"),
        (b"engine: [", None, "not YAML"),
        (b"\xff\xfe\xff", None, "desired"),
        (b"[" * 30_000, None, "desired"),
        (b"just a word", None, "keys with values"),
        (b"cameras: {a: &x {detail: low}, b: *x}", None, "alias"),
        (b"#" * (MOST_BYTES + 1), None, "65,536"),
    ],
)
async def test_what_cannot_be_used_is_refused_with_its_key_and_never_tried(
    far: Far, payload: bytes, key: str | None, said: str
) -> None:
    await far.told(GOOD)
    report = await far.told(payload)
    (refused,) = report["refused"]
    assert (report["state"], refused["key"], said in refused["message"]) == ("refused", key, True)
    assert (len(far.tried), far.remote.configure().engine.slots) == (1, 2)


async def test_one_wrong_key_refuses_the_whole(far: Far) -> None:
    report = await far.told(b"engine: {slots: 2}\nqueue: {max_jobs: 9}\nstate_dir: /tmp\n")
    assert [each["key"] for each in report["refused"]] == ["state_dir"]
    assert (far.tried, far.remote.configure().engine.slots) == ([], Settings().engine.slots)


async def test_no_answer_holds_a_secret_that_was_sent(far: Far) -> None:
    await far.told(b"mqtt: {password: hunter2}")
    assert "hunter2" not in json.dumps(far.reports)


async def test_a_defect_of_ours_costs_the_message_and_not_the_agent(far: Far) -> None:
    async def broken() -> Ended:
        raise ZeroDivisionError

    assert (await far.told(GOOD, broken))["state"] == "refused"
    assert far.kept == set()


async def test_what_the_box_refuses_is_reported_with_its_reason_and_tried_when_it_comes_again(far: Far) -> None:
    report = await far.told(GOOD, Ended("refused", "model x is not installed"))
    assert (report["state"], report["detail"]) == ("refused", "model x is not installed")
    assert (await far.told(GOOD))["state"] == "applied"


async def test_a_layer_that_failed_its_trial_leaves_the_last_good_one_and_is_not_tried_again(far: Far) -> None:
    await far.told(GOOD)
    report = await far.told(OTHER, Ended("rolled_back", "the model cannot be loaded"))
    assert (report["state"], report["detail"]) == ("rolled_back", "the model cannot be loaded")
    far.start()
    assert (await far.told(OTHER)) == report
    assert (len(far.tried), far.remote.configure().engine.slots) == (2, 2)


async def test_another_version_of_the_agent_tries_it_again(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    await far.told(GOOD, Ended("rolled_back", "the model cannot be loaded"))
    monkeypatch.setattr(force, "__version__", "99.0")
    far.start()
    assert (await far.told(GOOD))["state"] == "applied"


async def test_over_other_files_it_is_tried_again(far: Far) -> None:
    """They are read anew for a trial, and a mistake that waited in them may have been why it failed."""
    own = far.file.read_text()
    far.file.write_text(own + "queue: {max_jobs: 5}\n")
    await far.told(GOOD, Ended("rolled_back", "why"))
    far.file.write_text(own)
    assert (await far.told(GOOD))["state"] == "applied"


async def test_a_mistake_in_the_files_is_not_blamed_on_it_for_good(far: Far) -> None:
    own = far.file.read_text()
    far.file.write_text(own + "queue: {max_job: 5}\n")
    assert (await far.told(GOOD))["state"] == "refused"
    far.file.write_text(own)
    assert (await far.told(GOOD))["state"] == "applied"


async def test_what_is_read_for_somebody_else_during_a_trial_is_what_holds(far: Far) -> None:
    async def asked() -> Ended:
        assert far.remote.configure().engine.slots == Settings().engine.slots
        return Ended("rolled_back", "why")

    assert (await far.told(GOOD, asked))["state"] == "rolled_back"


async def test_a_later_good_one_clears_the_failure(far: Far) -> None:
    await far.told(OTHER, Ended("rolled_back", "why"))
    await far.told(GOOD)
    assert far.kept == {"good"}


async def test_a_trial_is_marked_on_disk_while_it_lasts(far: Far) -> None:
    async def looked() -> Ended:
        assert (far.folder / "state" / "desired" / "trial").read_bytes() == GOOD
        return Ended()

    await far.told(GOOD, looked)
    assert far.kept == {"good"}


async def test_a_layer_whose_mark_is_found_at_the_start_took_the_agent_down_and_has_failed(far: Far) -> None:
    await far.told(GOOD)
    (far.folder / "state" / "desired" / "trial").write_bytes(OTHER)
    far.start()
    assert far.remote.configure().engine.slots == 2
    report = await far.told(OTHER)
    assert (report["state"], "ended while it tried this" in report["detail"]) == ("rolled_back", True)
    assert (len(far.tried), far.kept) == (1, {"good", "failed"})


async def test_a_trial_that_a_stop_interrupts_has_shown_nothing(far: Far) -> None:
    async def stopped() -> Ended:
        far.stop.set()
        raise asyncio.CancelledError

    await far.told(GOOD, stopped)
    assert far.ended  # of itself: the box drains on, and would be cut short by what looks like a failure
    far.start()
    assert (far.reports, far.kept, far.remote.configure().engine.slots) == ([], set(), Settings().engine.slots)
    assert (await far.told(GOOD))["state"] == "applied"


async def test_a_trial_that_ends_with_the_agents_own_failure_has_failed(far: Far) -> None:
    async def died() -> Ended:
        raise asyncio.CancelledError

    await far.told(GOOD, died)
    far.start()
    assert (await far.told(GOOD))["state"] == "rolled_back"


async def test_a_box_that_is_not_to_be_set_from_afar_starts_without_what_it_holds(far: Far) -> None:
    await far.told(GOOD)
    far.file.write_text(far.file.read_text() + "\nremote_config: false\n")
    far.start()
    assert far.remote.configure().engine.slots == Settings().engine.slots


async def test_a_layer_that_the_files_no_longer_go_with_does_not_keep_the_box_from_starting(far: Far) -> None:
    await far.told(b"models: {text: null, vision: shapes-vision}\ncameras: {door: {private: true}}\n")
    (far.folder / "state" / "desired" / "good").write_bytes(b"engine: {gone_in_this_version: 2}")
    far.start()
    # It may have said what is to stay here.
    assert (far.remote.configure().placement, far.remote.configure().models.text) == ("local_only", "smollm2-135m")


async def test_and_the_next_good_one_takes_its_place(far: Far) -> None:
    await far.told(GOOD)
    (far.folder / "state" / "desired" / "good").write_bytes(b"engine: {gone_in_this_version: 2}")
    far.start()
    assert (await far.told(b"engine: {gone_in_this_version: 2}"))["state"] == "refused"
    assert (await far.told(GOOD))["state"] == "applied"
    assert far.remote.configure().placement == Settings().placement


async def test_an_own_configuration_that_is_wrong_is_not_blamed_on_what_came_from_afar(far: Far) -> None:
    await far.told(GOOD)
    far.file.write_text("engine: {slot: 2}")
    with pytest.raises(ConfigError, match=r"box\.yaml:1"):
        far.start()


async def test_a_reload_over_files_that_it_does_not_go_with_is_an_error(far: Far) -> None:
    await far.told(b"models: {text: null, vision: shapes-vision}")
    far.file.write_text(far.file.read_text() + "\nmodels: {dir: [1]}\n")
    with pytest.raises(ConfigError):
        far.remote.configure()


async def test_of_several_messages_the_latest_is_answered(far: Far) -> None:
    far.remote.desired(b"engine: {slots: many}")
    assert (await far.told(GOOD))["hash"] == digest(GOOD)
    assert len(far.reports) == 1


async def test_a_disk_that_takes_nothing_refuses_before_anything_is_tried(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "_write", full)
    report = await far.told(GOOD)
    assert (report["state"], "No space left" in report["detail"], far.tried) == ("refused", True, [])


async def test_a_full_disk_does_not_keep_a_box_from_starting_after_a_trial_that_killed_it(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    await far.told(GOOD)
    (far.folder / "state" / "desired" / "trial").write_bytes(OTHER)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "_write", full)
    far.start()
    assert ((await far.told(OTHER))["state"], far.remote.configure().engine.slots) == ("rolled_back", 2)


async def test_a_layer_that_cannot_be_read_keeps_the_box_from_starting(far: Far) -> None:
    await far.told(GOOD)
    good = far.folder / "state" / "desired" / "good"
    good.unlink()
    good.mkdir()  # root reads whatever there is but this
    with pytest.raises(UserError, match="cannot be read"):
        far.start()


async def test_what_the_box_would_start_with_can_be_shown_to_whoever_asks(far: Far) -> None:
    read = partial(load, [far.file], environ={})
    assert in_force(read)[0].settings == read().settings
    await far.told(GOOD)
    loaded, left_out = in_force(read)
    assert (loaded.settings, left_out) == (far.remote.configure(), None)


async def test_so_can_what_is_left_out_and_why(far: Far) -> None:
    await far.told(GOOD)
    (far.folder / "state" / "desired" / "good").write_bytes(b"pool: lab")
    loaded, left_out = in_force(partial(load, [far.file], environ={}))
    far.start()
    assert (loaded.settings, "`pool` cannot be set from afar" in (left_out or "")) == (far.remote.configure(), True)


async def test_whoever_may_not_read_what_is_held_is_told_so(far: Far) -> None:
    (far.folder / "state").mkdir()
    (far.folder / "state" / "desired").write_text("root may look into every folder, but not into a file")
    loaded, left_out = in_force(partial(load, [far.file], environ={}))
    assert (loaded.settings.placement, "cannot be read" in (left_out or "")) == ("prefer_local", True)


async def test_whoever_asks_does_not_end_a_trial(far: Far) -> None:
    async def looked() -> Ended:
        in_force(partial(load, [far.file], environ={}))
        return Ended()

    assert (await far.told(GOOD, looked))["state"] == "applied"
    assert far.kept == {"good"}


async def test_a_layer_with_which_the_box_cannot_start_is_left_out_and_nothing_leaves_the_box(far: Far) -> None:
    await far.told(b"models: {text: phi-4-mini}")
    far.start()
    assert far.remote.shelve(UserError("model phi-4-mini is not installed"))
    settings = far.remote.configure()
    assert (settings.models.text, settings.placement) == ("smollm2-135m", "local_only")


async def test_and_is_tried_again_when_it_arrives(far: Far) -> None:
    await far.told(GOOD)
    far.start()
    far.remote.shelve(UserError("there is too little memory"))
    assert (await far.told(GOOD))["state"] == "applied"
    assert (far.remote.configure().engine.slots, len(far.tried)) == (2, 2)


async def test_if_it_fails_then_it_is_left_out_at_the_next_start(far: Far) -> None:
    await far.told(GOOD)
    far.start()
    far.remote.shelve(UserError("there is too little memory"))
    await far.told(GOOD, Ended("rolled_back", "the model cannot be loaded"))
    far.start()
    assert far.remote.configure().placement == "local_only"
    assert (await far.told(GOOD))["state"] == "rolled_back"


@pytest.mark.parametrize("own", ["{}", "remote_config: false"])
async def test_a_box_that_cannot_start_for_its_own_files_has_no_layer_to_leave_out(tmp_path: Path, own: str) -> None:
    far = Far(tmp_path, "remote_config: true")
    if own != "{}":
        await far.told(GOOD)
        far.file.write_text(far.file.read_text().replace("remote_config: true", own))
    far.start()
    assert not far.remote.shelve(UserError("model smollm2-135m is not installed"))


async def test_a_layer_is_left_out_once(far: Far) -> None:
    await far.told(GOOD)
    far.start()
    sentence = UserError("model smollm2-135m is not installed")
    assert [far.remote.shelve(sentence), far.remote.shelve(sentence)] == [True, False]


async def test_an_answer_stays_small_whatever_is_wrong(far: Far) -> None:
    report = await far.told(json.dumps({"y" * 9_000 + str(n): n for n in range(7)} | {"engine": "x" * 500}).encode())
    assert len(json.dumps(report)) < 10_000
    report = await far.told(json.dumps({f"k{n}": n for n in range(3_000)}).encode())
    assert (len(report["refused"]), len(json.dumps(report)) < 10_000) == (20, True)
    assert "20 problems" in report["detail"]


async def test_a_disk_that_fails_after_a_good_trial_has_it_made_again(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def sick(self: Path, target: Path) -> Path:
        if target.name == "good":
            raise OSError(5, "Input/output error")
        return replace(self, target)

    with monkeypatch.context() as ailing:
        ailing.setattr(Path, "replace", sick)
        report = await far.told(GOOD)
    assert (report["state"], "forgets it" in report["detail"]) == ("applied", True)
    far.start()
    assert far.remote.configure().engine.slots == Settings().engine.slots
    assert (await far.told(GOOD))["state"] == "applied"


async def test_the_hash_of_whatever_was_sent_is_taken_beside_the_loop(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()

    def hashed(payload: bytes) -> str:
        threads.add(threading.current_thread())
        return digest(payload)

    monkeypatch.setattr(trying, "digest", hashed)
    await far.told(b"#" * (MOST_BYTES + 1))
    assert threads
    assert threading.main_thread() not in threads
