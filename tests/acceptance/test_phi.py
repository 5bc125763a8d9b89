"""A model of Phi-3.5's architecture through everything that is real: chat template, `<|end|>`, and long rope.

`scripts/make-phi-tiny` made it, and asked transformers with the same weights, the whole sequence anew for each token.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.boxes import Box
from tests.brokers import Broker
from tests.devices import Device

MakePhi = Callable[..., Box]
PHI = Path(__file__).parent.parent / "models" / "phi-tiny"
REFERENCE: dict[str, dict[str, Any]] = json.loads((PHI / "reference.json").read_text())


@pytest.fixture
def phi(tmp_path: Path, broker: Broker) -> MakePhi:
    """Make a box with the small Phi, not yet started."""

    def make(**settings: Any) -> Box:
        return Box(tmp_path, broker.port, PHI, **settings)

    return make


def asked(name: str, **fields: Any) -> dict[str, Any]:
    """Return the job of that name in the reference."""
    each = REFERENCE[name]
    system = [{"role": "system", "content": each["system"]}] if each["system"] else []
    user = {"role": "user", "content": f"{each['line'] * each['times']}say {each['say']}"}
    return {"id": name.replace(" ", "-"), "messages": [*system, user], "max_tokens": 16, **fields}


async def test_it_answers_as_transformers_does_at_every_length(phi: MakePhi, broker: Broker) -> None:
    async with Device(broker.port) as device, phi():
        for name in REFERENCE:
            device.publish("text", asked(name))
        finals = {name: await device.final(name.replace(" ", "-")) for name in REFERENCE}
    said = {name: (final["text"], final["usage"]["prompt_tokens"]) for name, final in finals.items()}
    assert said == {name: (each["text"], each["prompt_tokens"]) for name, each in REFERENCE.items()}


async def test_its_words_are_streamed_and_its_end_token_is_none_of_them(phi: MakePhi, broker: Broker) -> None:
    async with Device(broker.port) as device, phi():
        device.publish("text", {"id": "j1", "prompt": "say one two three four five six", "max_tokens": 50})
        final = await device.final("j1")
        await device.until(lambda: device.text("j1") == final["text"])
    assert (final["text"], final["finish_reason"]) == ("one two three four five six", "stop")


async def test_a_long_prompt_that_comes_again_is_not_computed_again(phi: MakePhi, broker: Broker) -> None:
    name = "across the switch"
    async with Device(broker.port) as device, phi(engine={"slots": 1}):
        for job in ("j1", "j2"):
            device.publish("text", asked(name, id=job))
            final = await device.final(job)
    assert final["usage"]["cached_prompt_tokens"] > 4096
    assert final["text"] == REFERENCE[name]["text"]


async def test_what_was_computed_for_a_long_job_is_not_built_on_by_a_shorter_one(phi: MakePhi, broker: Broker) -> None:
    async with Device(broker.port) as device, phi(engine={"slots": 1}):
        for name in ("across the switch", "below the switch"):
            device.publish("text", asked(name))
            final = await device.final(name.replace(" ", "-"))
    assert final["usage"]["cached_prompt_tokens"] == 0
    assert final["text"] == REFERENCE["below the switch"]["text"]


async def test_a_job_is_cancelled_while_its_long_prompt_is_computed(phi: MakePhi, broker: Broker) -> None:
    longest = {"id": "longest", "prompt": "all is well. " * 2000 + "say red", "max_tokens": 16}
    async with Device(broker.port) as device, phi():
        # The shorter ones are computed first.
        for job in ("j1", "j2", "j3"):
            device.publish("text", asked("across the switch", id=job))
        device.publish("text", longest)
        await device.state("longest", "started")
        device.publish("cancel", "longest")
        final = await device.final("longest")
        texts = [(await device.final(job))["text"] for job in ("j1", "j2", "j3")]
    assert (final["state"], final["text"]) == ("CANCELED", "")
    assert texts == [REFERENCE["across the switch"]["text"]] * 3
