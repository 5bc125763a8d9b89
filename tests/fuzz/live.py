"""A live box under hostile messages: ``scripts/fuzz`` sends it 120,000 of them, the suite some thousand.

Everything is real: mosquitto, the agent's process, its models. What is held against the box is seen from outside.
"""

import argparse
import asyncio
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.demo import models_dir
from agent.metrics import resident_bytes
from agent.models import pull
from tests.boxes import Box
from tests.brokers import Broker
from tests.devices import VERSIONS
from tests.fuzz import packets
from tests.fuzz.ledger import Ledger, Silent
from tests.fuzz.memory import Sample, growth, settled, slope
from tests.fuzz.messages import Fuzz, Shot
from tests.fuzz.properties import CAMERA, NODE

# Nothing is to be lost at the broker, which is not what is tried here, and nothing to be written a hundred times.
BROKER = (
    *("max_queued_messages 0", "max_inflight_messages 0", "autosave_on_changes false", "autosave_interval 0"),
    "log_dest none",
)
BOX: dict[str, Any] = {
    "cameras": {CAMERA: {"prompt": "What is it?", "detail": "low"}},
    # As many as may be unanswered at a time, and some: no honest job is to be refused. Answers are short, since they
    # are not the point either.
    "queue": {"max_jobs": 2000},
    "limits": {"max_tokens": 3},
}
# Where memory is looked at, the senders pause: nothing is under way.
_PAUSES = 20


@dataclass
class Result:
    """What happened; nothing in ``findings`` if all was well."""

    seconds: float
    ledger: Ledger
    samples: list[Sample]
    findings: list[str]


class Client:
    """A connection that keeps no count: it sends what it is given, and hands on what it hears."""

    def __init__(self, port: int, name: str, version: str) -> None:
        self.v5 = version == "5"
        self.disconnects: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._subscribed = asyncio.Event()
        clean = None if self.v5 else True
        self._client = paho.Client(CallbackAPIVersion.VERSION2, name, clean, protocol=VERSIONS[version])
        self._client.max_inflight_messages_set(0)
        self._client.on_disconnect = lambda *args: self.disconnects.append(str(args[3]))
        self._port = port

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._client.connect, "127.0.0.1", self._port)
        self._client.loop_start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.on_disconnect = self._client.on_message = self._client.on_subscribe = None
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    async def listen(self, ledger: Ledger, *filters: str) -> None:
        """Have the ledger hear what comes."""

        def on_message(_client: object, _data: object, message: paho.MQTTMessage) -> None:
            self._loop.call_soon_threadsafe(ledger.hear, message.topic, bytes(message.payload))

        def on_subscribe(*_: object) -> None:
            self._loop.call_soon_threadsafe(self._subscribed.set)

        self._client.on_message, self._client.on_subscribe = on_message, on_subscribe
        self._client.subscribe([(each, 1) for each in filters])
        await self._subscribed.wait()

    def send(self, shot: Shot) -> None:
        """Publish."""
        properties = _properties(shot.properties) if self.v5 else None
        self._client.publish(shot.topic, shot.payload, shot.qos, shot.retain, properties)


async def fuzz(box: Box, port: int, seed: int, count: int, pauses: int = _PAUSES) -> Result:
    """Send ``count`` messages to a running box whose models are loaded, and look at it ``pauses`` times."""
    ledger, shots = Ledger(), iter(Fuzz(seed))
    begun = time.monotonic()
    async with (
        Client(port, "listener", "5") as listener,
        Client(port, "five-a", "5") as five_a,
        Client(port, "five-b", "5") as five_b,
        Client(port, "three-a", "3.1.1") as three_a,
        Client(port, "three-b", "3.1.1") as three_b,
    ):
        senders = (five_a, five_b, three_a, three_b)
        await listener.listen(ledger, f"{NODE}/res/#", "clients/#", "others/#")
        samples, findings = [_sample(box, 0)], []
        looks = {count * number // pauses for number in range(1, pauses + 1)}
        try:
            for number, shot in enumerate(islice(shots, count), 1):
                await ledger.room()
                ledger.ask(shot)
                if shot.packet is not None:
                    await packets.send(port, shot.client, *shot.packet)
                else:
                    senders[number % (2 if shot.properties else 4)].send(shot)
                if number in looks:
                    await _rest(ledger, senders, number)
                    samples.append(_sample(box, number))
        except Silent as silent:
            findings.append(str(silent))
            samples.append(_sample(box, number))
        findings += [f"the broker closed {each}" for client in (listener, *senders) for each in client.disconnects]
    result = Result(time.monotonic() - begun, ledger, samples, findings + ledger.findings() + _logged(box))
    result.findings.extend(_compared(samples))
    return result


async def _rest(ledger: Ledger, senders: Sequence[Client], number: int) -> None:
    """Wait until the box has handled all that was sent, what has no answer too: a connection's messages keep order."""
    for index, sender in enumerate(senders):
        shot = _marker(number, index)
        ledger.ask(shot)
        sender.send(shot)
    await ledger.quiet()


def _marker(number: int, sender: int) -> Shot:
    """Make an honest job that is behind all that its sender has sent, and answered behind all that.

    At QoS 2: a broker hands such a message on in its second round, behind those that were sent before.
    """
    client, job_id = f"m{number}-{sender}", "marker"
    payload = b'{"id":"%s","prompt":"What is the capital of France?","max_tokens":1}' % job_id.encode()
    topic = f"{NODE}/req/{client}/text"
    return Shot("marker", client, topic, payload, 2, finals="one", job_id=job_id, honest=True)


def _sample(box: Box, sent: int) -> Sample:
    workers = sorted(box.workers)
    status = Path(f"/proc/{box.pid}/status").read_text(encoding="utf-8")
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return Sample(
        sent,
        resident_bytes(box.pid),
        int(peak) * 1024,
        sum(map(resident_bytes, workers)),
        len(list(Path(f"/proc/{box.pid}/fd").iterdir())),
        (box.pid, *workers),
    )


def _compared(samples: Sequence[Sample]) -> list[str]:
    first, last = samples[0], samples[-1]
    found = growth(samples)
    if first.pids != last.pids:
        found.append(f"processes ended: {first.pids} became {last.pids}")
    if first.descriptors != last.descriptors:
        found.append(f"the agent has {last.descriptors} open files, and had {first.descriptors}")
    return found


def _logged(box: Box) -> list[str]:
    """Tell what the box has logged that it should not have: errors, a second connection, anything but events."""
    lines = box._log.read_text().splitlines()
    found = [f"the box wrote: {line[:200]}" for line in lines if not line.startswith("{")]
    events = box.events
    found += [f"the box logged: {json.dumps(each)[:2000]}" for each in events if each["level"] in ("error", "critical")]
    for name in ("mqtt.connected", "service.started"):
        times = sum(each["event"] == name for each in events)
        if times != 1:
            found.append(f"the box logged {name} {times} times")
    return found


def _properties(values: Mapping[str, Any]) -> Properties | None:
    if not values:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


async def _main(arguments: argparse.Namespace) -> int:
    store = Path(os.environ.get("EDGE_SLM_TEST_MODELS", models_dir()))
    models = {name: str(pull(model, store)) for name, model in (("text", "smollm2-135m"), ("vision", "shapes-vision"))}
    print(f"seed {arguments.seed}, {arguments.messages:,} messages", flush=True)
    with tempfile.TemporaryDirectory() as directory, Broker(Path(directory), *BROKER) as broker:
        box = Box(Path(directory), broker.port, Path(), models=models, **BOX)
        async with box:
            await box.logged("engine.model_loaded", 2)
            result = await fuzz(box, broker.port, arguments.seed, arguments.messages)
    print(*report(result, arguments.messages), sep="\n")
    return 1 if result.findings else 0


def report(result: Result, count: int) -> Iterator[str]:
    """Yield what was seen, line by line."""
    ledger, last = result.ledger, result.samples[-1]
    yield f"{result.seconds:.0f} s, {count / result.seconds:.0f} messages/s, {ledger.finals:,} finals"
    for title, counted in (("sent", ledger.sorts), ("codes", ledger.codes), ("kinds", ledger.kinds)):
        yield f"{title}: " + ", ".join(f"{name} {times:,}" for name, times in counted.most_common())
    yield "the agent's memory at rest, in MB: " + " ".join(f"{each.agent / 1e6:.1f}" for each in result.samples)
    late = settled(result.samples)
    judged = f"{slope(late):+.1f} bytes a message in the last {len(late)}" if late else "too few to be judged"
    yield f"{judged}; the most at any moment {last.peak / 1e6:.1f} MB; its workers {last.workers / 1e6:.1f} MB"
    yield "its open files: " + " ".join(str(each.descriptors) for each in result.samples)
    yield from (f"FOUND: {finding}" for finding in result.findings[:50])
    yield f"{len(result.findings)} findings"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=120_000)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="the same one makes the same messages")
    raise SystemExit(asyncio.run(_main(parser.parse_args())))
