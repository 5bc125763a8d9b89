"""The cloud of the bench: a stand-in in a process of its own, and what the way through the agent adds to it."""

import asyncio
import importlib.util
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx

from agent.bench.row import Row, heard
from agent.client import Client
from agent.demo.children import Child, while_alive
from agent.errors import UserError
from agent.standin import KEY, MODELS, StandIn

_FIRST_TOKEN_S = 0.3
_TOKENS_PER_S = 100.0
_PAIRS = 20
_READY_S = 10.0
_STOP_S = 5.0
_HOST = "127.0.0.1"


def app() -> StandIn:
    """Make the stand-in; uvicorn calls this in the child."""
    return StandIn(_FIRST_TOKEN_S, _TOKENS_PER_S)


def check() -> None:
    """See that the stand-in can be served, before anything is measured.

    Raises:
        UserError: it cannot.

    """
    if importlib.util.find_spec("uvicorn") is None:
        raise UserError("--saturate needs uvicorn for its cloud: install the dev group (pip install --group dev)")


@dataclass
class Endpoint:
    """A running stand-in."""

    child: Child
    base_url: str
    key_file: Path

    @property
    def settings(self) -> dict[str, object]:
        """The section ``cloud`` of a box that may use it."""
        return {
            "enabled": True,
            "base_url": self.base_url,
            "api_key_file": str(self.key_file),
            "text_model": MODELS[0],
            # A paid endpoint's. With the 40 of NVIDIA's free tier, which are the default, that tier would be measured.
            "requests_per_minute": 6000,
        }


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    """Run the stand-in, in a process of its own: it must not share a loop with the client that measures it."""
    with TemporaryDirectory(prefix="edge-slm-bench-") as name:
        folder, port = Path(name), _free_port()
        key_file = folder / "key"
        key_file.write_text(KEY, encoding="ascii")
        uvicorn = (sys.executable, "-P", "-m", "uvicorn", "--factory", f"{__name__}:{app.__name__}")
        options = ("--host", _HOST, "--port", str(port), "--lifespan", "off", "--log-level", "warning")
        child = await Child.start("the cloud stand-in", (*uvicorn, *options), folder / "standin.log")
        try:
            async with asyncio.timeout(_READY_S):
                await while_alive(_listening(port), child)
            yield Endpoint(child, f"http://{_HOST}:{port}/v1", key_file)
        finally:
            await child.stop(_STOP_S)


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as probe:
        return int(probe.getsockname()[1])


async def _listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(_HOST, port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)  # there is nothing to wait on but the port itself
        else:
            writer.close()
            return


async def added(client: Client, cloud: Endpoint, requests: Iterator[dict[str, object]]) -> list[Row]:
    """Ask the stand-in directly and through an idle box, in turns: how much later the first token comes.

    Args:
        client: of a box that has this cloud.
        cloud: the stand-in.
        requests: jobs, endlessly many.

    """
    through, direct = [], []
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=cloud.base_url, headers=headers, trust_env=False) as http:
        for _ in range(_PAIRS + 1):
            through.append((await heard(client.ask({**next(requests), "placement": "cloud_only"}))).first_s)
            direct.append(await _directly(http, next(requests)))
    # The first pair makes the connections.
    ours, theirs = median(through[1:]), median(direct[1:])
    return [
        Row(
            "cloud text through the agent, against the same request made directly: added to first token, p50",
            (ours - theirs) * 1000,
            "ms",
            10,
            "at most",
            f"{ours * 1000:.1f} against {theirs * 1000:.1f} ms, {_PAIRS} of each in turns, on connections that stand",
        ),
    ]


async def _directly(http: httpx.AsyncClient, request: dict[str, object]) -> float:
    """Ask the stand-in as a program without the agent would; return the seconds until the first token."""
    body = request | {"model": MODELS[0], "stream": True, "stream_options": {"include_usage": True}}
    begun, first = time.perf_counter(), None
    async with http.stream("POST", "/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():  # to its end, so that the connection can be used again
            if first is None and line.startswith("data: {") and _text(line):
                first = time.perf_counter() - begun
    if first is None:
        raise RuntimeError("the stand-in answered without a word")
    return first


def _text(line: str) -> str:
    choices = json.loads(line.removeprefix("data: "))["choices"]
    return str(choices[0]["delta"].get("content") or "") if choices else ""
