"""``edge-slm demo``: a broker, a model and a box, made the way a user would, and a question asked over MQTT."""

import asyncio
import json
import os
import secrets
import shlex
import signal
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.client import Client, host_and_port
from agent.demo import brokers
from agent.demo.brokers import Address
from agent.demo.children import Child, DemoError, while_alive
from agent.layers import load
from agent.models.catalogue import ModelError
from agent.models.store import resolve
from agent.settings import Settings

_NODE = "demo"
_MODEL = "smollm2-135m"
_QUESTION = "What is the capital of France?"
# Python starts in seconds on any Raspberry Pi.
_ONLINE_S = 60.0
# On the slowest one the model is there within half a minute; a demo that waits longer has failed.
_DEADLINE_S = 120.0
_DRAIN_S = 3
# After its drain the agent still sends the finals, for up to 5 s, and stops the inference process.
_AGENT_GRACE_S = _DRAIN_S + 10.0
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
            print(f"Model   {settings.models.text} in {settings.models_dir}", flush=True)
            log = self._folder / "agent.log"
            agent = await Child.start("the agent", [self._program, "run", "--config", self._config], log)
            stack.push_async_callback(agent.stop, _AGENT_GRACE_S)
            children.append(agent)
            await while_alive(device.online(_ONLINE_S), *children)
            print(f"Agent   online; its log is {log}", flush=True)
            self.answered = await while_alive(_ask(device), *children)
            if once or not self.answered:
                return 0 if self.answered else _FAILED
            print(invitation(self._program, self._config, settings, device.version), flush=True)
            await while_alive(asyncio.Event().wait(), *children)
        raise AssertionError("nothing sets that event")

    def _configure(self, address: Address) -> Settings:
        self._config.write_text(configuration(address, self._folder, models_dir()), encoding="utf-8")
        return load([self._config], []).settings

    async def _pull(self, settings: Settings) -> bool:
        """See to it that the model is there; a failure has been told to the user."""
        try:
            resolve(settings.models.text, settings.models_dir)
        except ModelError:
            # In a process of its own it can be interrupted, and its memory is gone before the agent needs it.
            command = (self._program, "models", "pull", settings.models.text, "--config", self._config)
            puller = await Child.start("the pull", command)
            try:
                return await puller.wait() == 0
            finally:
                await puller.stop(_BROKER_GRACE_S)
        return True


async def _ask(device: Client) -> bool:
    """Ask the question and print the words as they come, then the numbers; say whether there was an answer."""
    print(f"\n> {_QUESTION}", flush=True)
    request = {"id": secrets.token_hex(8), "prompt": _QUESTION, "temperature": 0, "deadline_s": _DEADLINE_S}
    shown = ""
    async for event in device.ask(request):
        if event.kind == "chunk":
            shown += event.body["text"]
            print(event.body["text"], end="", flush=True)
        elif event.kind == "final":
            print("" if event.body["text"] == shown else f"\n{event.body['text']}")
            if event.body["error"] is not None:
                raise DemoError(f"{event.body['error']['code']}: {event.body['error']['message']}")
            print(f"\n  {numbers(event.body)}", flush=True)
            return True
    return False


def numbers(final: Mapping[str, Any]) -> str:
    """Tell a final's speed in a line, and apart from it the wait for the model to load."""
    timing, placement, usage = final["timing"], final["placement"], final["usage"]
    rate = "" if timing["tokens_per_s"] is None else f"{timing['tokens_per_s']:.1f} tokens/s, "
    return (
        f"{rate}first token {timing['first_token_s'] - timing['queued_s']:.2f} s after the start,"
        f" {timing['queued_s']:.2f} s in the queue while the model loaded;"
        f" {usage['completion_tokens']} tokens by {placement['model']} on {placement['provider']}"
    )


def configuration(address: Address, folder: Path, models: Path) -> str:
    """Write the demo's configuration, as YAML. Strings are quoted as JSON, which YAML reads."""
    return f"""\
# Written anew by each `edge-slm demo`; copy it to keep what you change.
device: {{id: {_NODE}}}
mqtt: {{host: {json.dumps(address.host)}, port: {address.port}, protocol: {json.dumps(address.protocol)}}}
state_dir: {json.dumps(str(folder / "state"))}
models: {{text: {_MODEL}, dir: {json.dumps(str(models))}}}
# So that the next demo answers the same ids anew; a box keeps its answers for a day, to answer repeats.
spool: {{retention_s: 1}}
drain_s: {_DRAIN_S}
"""


def invitation(program: Path, config: Path, settings: Settings, version: str) -> str:
    """Write lines to paste into another terminal, for a broker that speaks this MQTT version."""
    mqtt = settings.mqtt
    where = f"-h {shlex.quote(mqtt.host)} -p {mqtt.port}{' -V 5' if version == '5' else ''}"
    base = f"{mqtt.root}/{settings.device.id}"
    # Long enough for a person to cancel it by hand.
    job = json.dumps({"id": "j1", "prompt": "Tell me a very long story about a lighthouse.", "max_tokens": 2000})
    return f"""
Ask more from another terminal:

  {shlex.quote(str(program))} ask --config {shlex.quote(str(config))} --max-tokens 80 "Why is the sky blue?"

or as any device would, with mosquitto's own clients (sudo apt-get install mosquitto-clients), listening first:

  mosquitto_sub {where} -t '{base}/res/me/#' -v
  mosquitto_pub {where} -q 1 -t {base}/req/me/text -m 'What is the capital of Italy?'
  mosquitto_pub {where} -q 1 -t {base}/req/me/text -m '{job}'
  mosquitto_pub {where} -q 1 -t {base}/req/me/cancel -m j1

Ctrl-C stops everything."""


def models_dir() -> Path:
    """Where this user's models are kept, for all demos and tests."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path there is to be ignored: https://specifications.freedesktop.org/basedir-spec/
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "edge-slm" / "models"
