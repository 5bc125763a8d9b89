"""What the demo writes and says."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.demo.brokers import Address
from agent.settings import Settings

_NODE = "demo"
CAMERA = "porch"
DRAIN_S = 3


def numbers(final: Mapping[str, Any]) -> str:
    """Tell a final's speed in a line, and apart from it the wait for the model to load."""
    timing, placement, usage = final["timing"], final["placement"], final["usage"]
    rate = "" if timing["tokens_per_s"] is None else f"{timing['tokens_per_s']:.1f} tokens/s, "
    return (
        f"{rate}first token {timing['first_token_s'] - timing['queued_s']:.2f} s after the start,"
        f" {timing['queued_s']:.2f} s in the queue while the model loaded;"
        f" {usage['completion_tokens']} tokens by {placement['model']} on {placement['provider']}"
    )


def frame_numbers(final: Mapping[str, Any]) -> str:
    """Tell in a line what a picture cost."""
    timing, placement, usage = final["timing"], final["placement"], final["usage"]
    return (
        f"{usage['image_tokens']} image tokens, answered {timing['total_s'] - timing['queued_s']:.2f} s after the start"
        f" by {placement['model']} on {placement['provider']}"
    )


def configuration(address: Address, folder: Path, models: Path) -> str:
    """Write the demo's configuration, as YAML. Strings are quoted as JSON, which YAML reads."""
    return f"""\
# Written anew by each `edge-slm demo`; copy it to keep what you change.
device: {{id: {_NODE}}}
mqtt: {{host: {json.dumps(address.host)}, port: {address.port}, protocol: {json.dumps(address.protocol)}}}
state_dir: {json.dumps(str(folder / "state"))}
models: {{text: smollm2-135m, vision: shapes-vision, dir: {json.dumps(str(models))}}}
cameras: {{{CAMERA}: {{prompt: What is in the picture?}}}}
# So that the next demo answers the same ids anew; a box keeps its answers for a day, to answer repeats.
spool: {{retention_s: 1}}
drain_s: {DRAIN_S}
"""


def invitation(program: Path, config: Path, frame: Path, settings: Settings, version: str) -> str:
    """Write lines to paste into another terminal, for a broker that speaks this MQTT version."""
    mqtt = settings.mqtt
    where = f"-h {shlex.quote(mqtt.host)} -p {mqtt.port}{' -V 5' if version == '5' else ''}"
    base = f"{mqtt.root}/{settings.device.id}"
    # Long enough for a person to cancel it by hand.
    job = json.dumps({"id": "j1", "prompt": "Tell me a very long story about a lighthouse.", "max_tokens": 2000})
    ask = f"{shlex.quote(str(program))} ask --config {shlex.quote(str(config))}"
    picture = shlex.quote(str(frame))
    return f"""
Ask more from another terminal:

  {ask} --max-tokens 80 "Why is the sky blue?"
  {ask} --image {picture} "What is in the picture?"

or as any device would, with mosquitto's own clients (sudo apt-get install mosquitto-clients), listening first:

  mosquitto_sub {where} -t '{base}/res/me/#' -v
  mosquitto_pub {where} -q 1 -t {base}/req/me/text -m 'What is the capital of Italy?'
  mosquitto_pub {where} -q 1 -t {base}/req/me/text -m '{job}'
  mosquitto_pub {where} -q 1 -t {base}/req/me/cancel -m j1
  mosquitto_pub {where} -q 1 -t {base}/req/me/image/{CAMERA} -f {picture}

Ctrl-C stops everything."""
