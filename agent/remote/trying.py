"""From a message on ``config/desired`` to the answer on ``config/reported``."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import structlog

from agent import __version__
from agent.contract.topics import Topics
from agent.errors import UserError
from agent.layers import ConfigError
from agent.remote.kept import Kept
from agent.remote.layer import Read, Verdict, digest, laid_over
from agent.settings import Settings

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")


class Outcome(Protocol):
    """How a change of the configuration ended; see `agent.supervisor.Outcome`."""

    @property
    def state(self) -> Literal["applied", "unchanged", "refused", "rolled_back"]:
        """What became of it."""

    @property
    def detail(self) -> str | None:
        """One sentence that says why."""


def held(settings: Settings) -> tuple[str, bytes] | None:
    """Return the layer that a box holds, and its name, to be shown to whoever asks; None if there is none to be read.

    Args:
        settings: the box's own, without it.

    """
    layer = _folder(settings) / "good"
    if not settings.remote_config or not os.access(layer, os.R_OK) or not layer.stat().st_size:
        return None
    return _name(settings), layer.read_bytes()


def _name(settings: Settings) -> str:
    return Topics(settings.mqtt.root, settings.device.id).config_desired


def _folder(settings: Settings) -> Path:
    return settings.state_dir / "desired"


def _opened(folder: Path) -> Kept:
    try:
        return Kept(folder, __version__)
    except OSError as error:
        # It may have said what is to stay on the box: not a word is to be said without knowing that.
        raise UserError(f"{folder} cannot be read ({error.strerror}): mend the disk, or its owner and mode") from error


class Remote:
    """The box's configuration with what it is told from afar, and the answers to that.

    Args:
        read: reads all layers.

    Raises:
        ConfigError: the box's own configuration cannot be used.
        UserError: what was kept of an earlier one cannot be read.

    """

    def __init__(self, read: Read) -> None:
        own = read().settings
        self._read = read
        self._name = _name(own)
        self._kept = _opened(_folder(own))
        self._trial: bytes | None = None
        # Why what holds could not be used when the agent started, and so is not.
        self._shelved: str | None = None
        self._latest: bytes | None = None
        self._last: Verdict | None = None
        self._arrived = asyncio.Event()
        try:
            self.configure()
        except ConfigError as wrong:
            self._shelved = str(wrong)

    def __repr__(self) -> str:
        trial = "" if self._trial is None else f", {digest(self._trial)[:8]} on trial"
        return f"<Remote {digest(self._kept.good)[:8]}{trial}{' shelved' if self._shelved else ''}>"

    def configure(self) -> Settings:
        """Read all layers, with the one from afar that holds, or is on trial.

        A layer may have held, and not be usable by another version of the agent, or over other files. The box starts
        without it then. It may have said what is to stay here, which nobody can tell any more: until there is a good
        one, nothing leaves the box.

        Raises:
            ConfigError: they cannot be used.

        """
        own = self._read()
        layer = self._kept.good if self._trial is None else self._trial
        if not own.settings.remote_config or not layer.strip():
            return own.settings
        try:
            return laid_over(self._read, self._name, layer).settings
        except ConfigError:
            if self._shelved is None or self._trial is not None:
                raise
            return own.settings.model_copy(update={"placement": "local_only"})

    def desired(self, payload: bytes) -> None:
        """Take what was published; what came before and has not been looked at yet is forgotten. Never blocks."""
        self._latest = payload
        self._arrived.set()

    async def run(
        self, change: Callable[[], Awaitable[Outcome]], report: Callable[[bytes], None], stop: asyncio.Event
    ) -> None:
        """Answer what arrives, until the agent is to end.

        A trial that its end interrupts has shown nothing: what was published is retained, and comes again. If nobody
        told the agent to end, it is failing, and the trial's mark stays.

        Args:
            change: has the box run with what `configure` returns now, or as before; cancelled if the agent is to end.
            report: publishes an answer.
            stop: is set when the agent is to end.

        """
        if self._shelved is not None:
            _log.error("config.shelved", hash=digest(self._kept.good), error=self._shelved)
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            payload, self._latest = self._latest, None
            if payload is None:
                continue
            try:
                verdict = await self._judged(payload, change)
            except asyncio.CancelledError:
                if stop.is_set():
                    self._kept.withdraw()
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                return
            except Exception:  # noqa: BLE001  the boundary of a message
                # A defect of ours. It is retained, and would end the agent at each start.
                self._kept.withdraw()
                _log.exception("config.broke", hash=digest(payload))
                verdict = Verdict(digest(payload), "refused", detail="a defect of the agent: see the box's log")
            if verdict != self._last:  # it comes again at each connect, and with each trial
                self._last = verdict
                _log.info(f"config.{verdict.state}", hash=verdict.hash, why=verdict.refused or verdict.detail)
            report(verdict.encode())

    async def _judged(self, payload: bytes, change: Callable[[], Awaitable[Outcome]]) -> Verdict:
        known, failure = digest(payload), self._kept.failure
        if payload == self._kept.good and self._shelved is None:
            return Verdict(known, "applied")
        if failure is not None and (failure.hash, failure.version) == (known, __version__):
            return Verdict(known, "rolled_back", detail=failure.detail)
        try:
            if payload.strip():
                await _in_thread(laid_over, self._read, self._name, payload)
            await _in_thread(self._kept.begin, payload)
        except ConfigError as wrong:
            return Verdict(known, "refused", tuple((each.key or "", str(each)) for each in wrong.problems))
        except OSError as error:
            return Verdict(known, "refused", detail=f"this box's disk does not keep it ({error.strerror}): mend that")
        self._trial = payload
        try:
            outcome = await change()
            return await _in_thread(self._settled, payload, outcome)
        finally:
            self._trial = None

    def _settled(self, payload: bytes, outcome: Outcome) -> Verdict:
        """Keep how a trial ended."""
        known = digest(payload)
        match outcome.state:
            case "applied" | "unchanged":
                self._shelved = None
                return Verdict(known, "applied", detail=self._held(payload))
            case "rolled_back":
                detail = outcome.detail or "the box did not become healthy with it"
                self._kept.fail(payload, detail)
                return Verdict(known, "rolled_back", detail=detail)
            case "refused":
                self._kept.withdraw()
                return Verdict(known, "refused", detail=outcome.detail)

    def _held(self, payload: bytes) -> str | None:
        """Keep a layer that the box runs with; return why that is not so, if it is not."""
        try:
            self._kept.hold(payload)
        except OSError as error:
            return f"the box runs with it, and forgets it when it ends: its disk does not keep it ({error.strerror})"
        return None


async def _in_thread(work: Callable[..., _T], *args: object) -> _T:
    """Do something that blocks. A thread cannot be cancelled: what it writes must not come after what tidies it up."""
    doing = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait([doing])
        raise
