"""``edge-slm ask`` and ``edge-slm cancel``: a device at the terminal."""

import argparse
import asyncio
import json
import secrets
import sys
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.client import Client, ClientError, host_and_port
from agent.contract.topics import is_identifier
from agent.errors import UsageError
from agent.layers import load
from agent.settings import Settings

# The {client} level of whoever has no login that could be one.
_NAME = "cli"
# The {camera} level of pictures from the command line.
_CAMERA = "ask"
# The retained status comes with the subscription; a box that is not online by then will not answer a person.
_ONLINE_S = 3.0


def request_of(args: argparse.Namespace) -> dict[str, Any]:
    """Build the contract's request from the arguments.

    Raises:
        UsageError: there is no prompt, a picture cannot be read, or the id is none.

    """
    job_id = secrets.token_hex(8) if args.id is None else _checked(args.id)
    text = args.text
    if text in (None, "-"):
        text = sys.stdin.read().strip()
    if not text:
        raise UsageError('there is nothing to ask: give a prompt, as in `edge-slm ask "What is MQTT?"`')
    images = [_base64(file) for file in args.image]
    # The id comes first: the box finds it there even in a request that is too large for it to read.
    request: dict[str, Any] = {"id": job_id}
    if args.system is None:
        request["prompt"] = text
        if images:
            request["images"] = images
    else:
        parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": image}} for image in images]
        content = [*parts, {"type": "text", "text": text}] if images else text
        request["messages"] = [{"role": "system", "content": args.system}, {"role": "user", "content": content}]
    for name in ("detail", "max_tokens", "temperature", "seed", "stop", "deadline_s"):
        value = getattr(args, name)
        if value is not None:
            request[name] = value
    return request


def _base64(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}): give a JPEG, PNG or GIF file") from None
    if not data:
        raise UsageError(f"{file} is empty: give a JPEG, PNG or GIF file")
    return b64encode(data).decode("ascii")


def _checked(job_id: str) -> str:
    # The box cannot answer under a name that is no topic level, and whoever waits would wait for ever.
    if not is_identifier(job_id):
        raise UsageError(f"{job_id!r} cannot be a job's id: take 1 to 64 letters, digits, `_` and `-`")
    return job_id


def _client(settings: Settings) -> Client:
    """Return a device under the login's name, as a broker's ACL may ask, and `cancel` finds what `ask` began."""
    login = settings.mqtt.username or ""
    return Client(settings.mqtt, settings.device.id, login if is_identifier(login) else _NAME)


def _settings(args: argparse.Namespace) -> Settings:
    overrides = list(args.set)
    if args.broker is not None:
        host, port = host_and_port(args.broker)
        overrides += [f"mqtt.host={json.dumps(host)}", f"mqtt.port={port}"]
    if args.node is not None:
        overrides.append(f"device.id={args.node}")
    return load(args.config, overrides).settings


def ask(args: argparse.Namespace) -> int:
    """Ask, and print the answer."""
    settings, request = _settings(args), request_of(args)
    return asyncio.run(_stream(settings, request, camera=_CAMERA if args.image else None, as_json=args.json))


async def _stream(settings: Settings, request: Mapping[str, Any], *, camera: str | None, as_json: bool) -> int:
    answer = Answer()
    async with _client(settings) as client:
        await client.online(_ONLINE_S)
        try:
            async for event in client.ask(request, camera):
                if as_json:
                    print(json.dumps({"event": event.kind, **event.body}, ensure_ascii=False), flush=True)
                else:
                    print(answer.take(event.kind, event.body), end="", flush=True)
                if event.kind == "final":
                    return _ended(event.body, as_json=as_json)
        except asyncio.CancelledError:
            # Ctrl-C: the box should not go on for nobody.
            await client.cancel(request["id"])
            raise
    raise ClientError("the answer ended without a final")


def _ended(final: Mapping[str, Any], *, as_json: bool) -> int:
    if not as_json:
        if final["error"] is not None:
            print(f"edge-slm: {final['error']['code']}: {final['error']['message']}", file=sys.stderr)
        if "notice" in final:
            print(f"edge-slm: {final['notice']}", file=sys.stderr)
    return 0 if final["error"] is None else 1


class Answer:
    """Puts an answer together for a terminal, where words that were printed cannot be taken back."""

    def __init__(self) -> None:
        self._attempt = 1
        self._next_seq = 0
        self._shown = ""
        self._gap = False

    def take(self, kind: str, body: Mapping[str, Any]) -> str:
        """Return what to print for an event: the next words, and at the end whatever was lost on the way."""
        if kind == "state":
            return ""
        notice = ""
        if body["attempt"] != self._attempt:
            notice = "\n[the engine was restarted; the answer begins again]\n" if self._shown else ""
            self._attempt, self._next_seq, self._shown, self._gap = body["attempt"], 0, "", False
        if kind == "final":
            return notice + self._rest(body["text"], truncated="truncated" in body)
        # Chunks are best effort: after a gap the final, which has the whole text, tells the rest.
        self._gap = self._gap or body["seq"] != self._next_seq
        self._next_seq += 1
        if self._gap:
            return notice
        self._shown += body["text"]
        return notice + str(body["text"])

    def _rest(self, text: str, *, truncated: bool) -> str:
        if truncated and self._shown.startswith(text):
            return "\n"  # more was shown than fitted into the final
        if text.startswith(self._shown):
            rest = text[len(self._shown) :]
            return f"{rest}\n" if text else ""
        return f"\n{text}\n"


def cancel(args: argparse.Namespace) -> int:
    """Ask for a job's end."""
    settings, job_id = _settings(args), _checked(args.id)

    async def send() -> None:
        async with _client(settings) as client:
            await client.cancel(job_id)

    asyncio.run(send())
    return 0
