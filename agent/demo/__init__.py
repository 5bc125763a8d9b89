"""``edge-slm demo``: a broker, a model and a box, made the way a user would, and a question asked over MQTT."""

import asyncio
import os
import signal
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from agent.client import Client, Event, host_and_port
from agent.demo import brokers, texts
from agent.demo.brokers import Address
from agent.demo.children import Child, DemoError, while_alive
from agent.layers import load
from agent.models import shapes
from agent.models.catalogue import ModelError
from agent.models.store import resolve
from agent.settings import Settings

_QUESTION = "What is the capital of France?"
_SEED = 2  # a red circle at the top right
_FRAME_SIZE = (640, 480)
# Python starts in seconds on any Raspberry Pi.
_ONLINE_S = 60.0
# On the slowest one the model is there within half a minute; a demo that waits longer has failed.
_DEADLINE_S = 120.0
# After its drain the agent still sends the finals, for up to 5 s, and stops the inference process.
_AGENT_GRACE_S = texts.DRAIN_S + 10.0
_BROKER_GRACE_S = 2.0
_FAILED, _NOT_STARTED, _INTERRUPTED = 1, 3, 130


async def run(*, once: bool, broker: str | None) -> int:
    """Show the whole thing, and stay up until interrupted.

    Args:
        once: end after the answer.
        broker: ``HOST[:PORT]`` of a broker to use; None starts one.

    Returns:
        the exit code.

    """
    demo = _Demo(Path.cwd() / ".demo", Path(sysconfig.get_path("scripts")) / "edge-slm")
    with _signals_cancel():
        try:
            return await demo.run(once=once, broker=broker)
        except DemoError as error:
            print(f"edge-slm: {error}", file=sys.stderr)
            return _FAILED if demo.answered else _NOT_STARTED
        except asyncio.CancelledError:
            return 0 if demo.answered else _INTERRUPTED


@contextmanager
def _signals_cancel() -> Iterator[None]:
    """Have the first signal to end cancel this task; later ones wait for the shutdown, which is short."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101  a coroutine runs in a task
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt() -> None:
        for each in signals:
            loop.add_signal_handler(each, lambda: None)
        task.cancel()
        # The signal may say that the terminal is gone.
        with suppress(OSError):
            print("\nStopping", flush=True)

    for each in signals:
        loop.add_signal_handler(each, interrupt)
    try:
        yield
    finally:
        for each in signals:
            loop.remove_signal_handler(each)


class _Demo:
    """One run.

    Args:
        folder: where its files go.
        program: the ``edge-slm`` to run.

    """

    def __init__(self, folder: Path, program: Path) -> None:
        self._folder = folder
        self._config = folder / "config.yaml"
        self._frame = folder / "frame.jpg"
        self._program = program
        self.answered = False

    async def run(self, *, once: bool, broker: str | None) -> int:
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DemoError(
                f"{self._folder} cannot be made ({error.strerror}): run the demo in a folder of yours"
            ) from None
        async with AsyncExitStack() as stack:
            # What is entered last is left first: the agent, which drains, then the device, then the broker.
            children = []
            if broker is not None:
                address = Address(*host_and_port(broker))
                print(f"Broker  {address.host}:{address.port}, as told", flush=True)
            else:
                launch = brokers.choose(self._folder)
                address = launch.address
                children.append(await brokers.start(launch, self._folder / "broker.log"))
                stack.push_async_callback(children[0].stop, _BROKER_GRACE_S)
                print(f"Broker  {launch.name} on {address.host}:{address.port}: {launch.limits}", flush=True)
            settings = self._configure(address)
            # Before the pull, which may take minutes: a named broker that is not there is told at once.
            device = await stack.enter_async_context(Client(settings.mqtt, settings.device.id, "demo"))
            if not await while_alive(self._pull(settings), *children):
                return _NOT_STARTED
            print(f"Models  {settings.models.text}, {settings.models.vision} in {settings.models_dir}", flush=True)
            log = self._folder / "agent.log"
            agent = await Child.start("the agent", [self._program, "run", "--config", self._config], log)
            stack.push_async_callback(agent.stop, _AGENT_GRACE_S)
            children.append(agent)
            await while_alive(device.online(_ONLINE_S), *children)
            print(f"Agent   online; its log is {log}", flush=True)
            await while_alive(_ask(device), *children)
            self.answered = True
            await while_alive(_show(device, self._frame), *children)
            if once:
                return 0
            lines = texts.invitation(self._program, self._config, self._frame, settings, device.version)
            print(lines, flush=True)
            await while_alive(asyncio.Event().wait(), *children)
        raise AssertionError("nothing sets that event")

    def _configure(self, address: Address) -> Settings:
        self._config.write_text(texts.configuration(address, self._folder, models_dir()), encoding="utf-8")
        return load([self._config], []).settings

    async def _pull(self, settings: Settings) -> bool:
        """See to it that the models are there; a failure has been told to the user."""
        for model in (settings.models.text, settings.models.vision):
            assert model is not None  # noqa: S101  the demo's own configuration names both
            try:
                # What comes with the package is copied each time: the store may have that of an older one.
                known = model == settings.models.text and resolve(model, settings.models_dir)
            except ModelError:
                known = None
            if not known:
                # In a process of its own it can be interrupted, and its memory is gone before the agent needs it.
                command = (self._program, "models", "pull", model, "--config", self._config)
                puller = await Child.start("the pull", command)
                try:
                    if await puller.wait() != 0:
                        return False
                finally:
                    await puller.stop(_BROKER_GRACE_S)
        return True


async def _ask(device: Client) -> None:
    """Ask the question, and print the answer and its numbers."""
    print(f"\n> {_QUESTION}", flush=True)
    final = await _answer(device.ask({"prompt": _QUESTION, "temperature": 0}))
    print(f"\n  {texts.numbers(final)}", flush=True)


async def _show(device: Client, file: Path) -> None:
    """Send a picture as a camera would, and print what the model sees and what that cost."""
    caption, frame = _drawn(file)
    print(f"\n> {file}, which shows {caption}", flush=True)
    final = await _answer(device.show(texts.CAMERA, frame))
    print(f"\n  {texts.frame_numbers(final)}", flush=True)


def _drawn(file: Path) -> tuple[str, bytes]:
    """Draw a picture; return what it shows, and the file."""
    picture = shapes.draw(Random(_SEED), _FRAME_SIZE)  # noqa: S311  it has no secret to keep
    picture.image.save(file)
    return picture.caption, file.read_bytes()


async def _answer(events: AsyncIterator[Event]) -> Mapping[str, Any]:
    """Print the words as they come, and return the final.

    Raises:
        DemoError: there is no answer.

    """
    shown = ""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DEADLINE_S):
            async for event in events:
                if event.kind == "chunk":
                    shown += event.body["text"]
                    print(event.body["text"], end="", flush=True)
                elif event.kind == "final":
                    print("" if event.body["text"] == shown else f"\n{event.body['text']}")
                    if event.body["error"] is not None:
                        raise DemoError(f"{event.body['error']['code']}: {event.body['error']['message']}")
                    return event.body
    raise DemoError(f"the box did not answer within {_DEADLINE_S:g} s: see its log")


def models_dir() -> Path:
    """Where this user's models are kept, for all demos and tests."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path there is to be ignored: https://specifications.freedesktop.org/basedir-spec/
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "edge-slm" / "models"
