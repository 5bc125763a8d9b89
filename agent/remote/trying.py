"""From a message on ``config/desired`` to the answer on ``config/reported``."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal, Protocol, TypeAlias, TypeVar

import structlog

from agent.errors import UserError
from agent.layers import ConfigError
from agent.remote.force import alone, circumstances, folder_of, name_of
from agent.remote.kept import Kept
from agent.remote.layer import Read, Verdict, digest, laid_over
from agent.settings import Settings
from agent.threads import apart

_log = structlog.get_logger(__name__)

_T = TypeVar("_T")


class Outcome(Protocol):
    """How a change of the configuration ended; see `agent.asks.Outcome`."""

    @property
    def state(self) -> Literal["applied", "unchanged", "refused", "rolled_back"]:
        """What became of it."""

    @property
    def detail(self) -> str | None:
        """One sentence that says why."""


# Has the box run with what the first returns, or as before; the second is called once it does, before anything else is
# read. Cancelled if the agent is to end.
_Change: TypeAlias = Callable[[Callable[[], Settings], Callable[[], None]], Awaitable[Outcome]]


def _opened(own: Settings) -> Kept:
    folder = folder_of(own)
    try:
        kept = Kept(folder, circumstances(own))
        kept.recover()
    except OSError as error:
        # It may have said what is to stay on the box: not a word is to be said without knowing that.
        raise UserError(f"{folder} cannot be read ({error.strerror}): mend the disk, or its owner and mode") from error
    return kept


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
        self._name, self._allowed = name_of(own), own.remote_config
        self._kept = _opened(own)
        # What the box runs with, which the disk may be told of a little later.
        self._layer = self._kept.good
        # Why what holds could not be used when the agent started, and so is not.
        self._shelved = self._kept.failed(digest(self._kept.good))
        self._latest: bytes | None = None
        self._last: Verdict | None = None
        self._arrived = asyncio.Event()
        try:
            self.configure()
        except ConfigError as wrong:
            self._shelved = str(wrong)

    def __repr__(self) -> str:
        return f"<Remote {digest(self._layer)[:8]}{' shelved' if self._shelved else ''}>"

    def configure(self) -> Settings:
        """Read all layers, with the one from afar that holds.

        A layer may have held, and not be usable by another version of the agent, or over other files, or its model may
        be gone. The box starts without it then (see `agent.remote.force.alone`), until a good one comes.

        Raises:
            ConfigError: they cannot be used.

        """
        return self._read_with(self._layer, shelved=self._shelved is not None)

    def shelve(self, why: UserError) -> bool:
        """Leave the layer that holds out, with which the box cannot start; return whether there was one to leave out.

        It is tried again when it is published again, which it is at each connect, being retained.
        """
        if not self._allowed or not self._kept.good.strip() or self._shelved is not None:
            return False
        self._shelved = "; ".join(str(why).splitlines())
        _log.error("config.shelved", hash=digest(self._kept.good), error=self._shelved)
        return True

    def desired(self, payload: bytes) -> None:
        """Take what was published; what came before and has not been looked at yet is forgotten. Never blocks."""
        self._latest = payload
        self._arrived.set()

    async def run(self, change: _Change, report: Callable[[bytes], None], stop: asyncio.Event) -> None:
        """Answer what arrives, until the agent is to end.

        A trial that its end interrupts has shown nothing: what was published is retained, and comes again. If nobody
        told the agent to end, it is failing, and the trial's mark stays.

        Args:
            change: has the box run with a layer, or as before; see `agent.supervisor.Supervisor.change`.
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
            known = ""
            try:
                known = await _in_thread(digest, payload)  # a broker may let 256 MB through, which take a second
                verdict = await self._judged(payload, known, change)
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
                _log.exception("config.broke", hash=known)
                verdict = Verdict(known, "refused", detail="a defect of the agent: see the box's log")
            if verdict != self._last:  # it comes again at each connect, and with each trial
                self._last = verdict
                _log.info(f"config.{verdict.state}", hash=verdict.hash, why=verdict.refused or verdict.detail)
            report(verdict.encode())

    def _read_with(self, layer: bytes, *, shelved: bool = False) -> Settings:
        own = self._read()
        if not own.settings.remote_config or not layer.strip():
            return own.settings
        return alone(own).settings if shelved else laid_over(self._read, self._name, layer).settings

    def _taken(self, layer: bytes) -> None:
        self._layer, self._shelved = layer, None

    async def _judged(self, payload: bytes, known: str, change: _Change) -> Verdict:
        if payload == self._kept.good and self._shelved is None:
            return Verdict(known, "applied")
        try:
            self._kept.circumstances = circumstances((await apart(self._read)).settings)
        except ConfigError as wrong:
            return Verdict.refusing(known, wrong.problems)
        failed = self._kept.failed(known)
        if failed is not None:
            return Verdict(known, "rolled_back", detail=failed)
        try:
            if payload.strip():
                await apart(partial(laid_over, self._read, self._name, payload))
            await _in_thread(self._kept.begin, payload)
        except ConfigError as wrong:
            return Verdict.refusing(known, wrong.problems)
        except OSError as error:
            return Verdict(known, "refused", detail=f"this box's disk does not keep it ({error.strerror}): mend that")
        # The trial is read for this change alone: one that somebody else wants meanwhile is none of it.
        outcome = await change(partial(self._read_with, payload), partial(self._taken, payload))
        return await _in_thread(self._settled, payload, outcome)

    def _settled(self, payload: bytes, outcome: Outcome) -> Verdict:
        """Keep how a trial ended."""
        known = digest(payload)
        match outcome.state:
            case "applied" | "unchanged":
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
