"""``edge-slm ask`` and ``edge-slm cancel``: a device at the terminal."""

import argparse
import asyncio
import json
import secrets
import sys
from collections.abc import Mapping
from typing import Any

from agent.client import Client, ClientError
from agent.demo.brokers import parse
from agent.layers import load
from agent.settings import Settings

# The {client} level that the command line asks under, so that `cancel` finds what `ask` began.
_NAME = "cli"
# The retained status comes with the subscription; a box that is not online by then will not answer a person.
_ONLINE_S = 3.0


def add_to(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", configured: argparse.ArgumentParser
) -> None:
    """Add the two commands."""
    to_box = argparse.ArgumentParser(add_help=False, parents=[configured])
    to_box.add_argument("--broker", metavar="HOST[:PORT]", help="where the broker is; by default as configured")
    to_box.add_argument("--node", metavar="ID", help="which box; by default the configured device.id")

    ask = commands.add_parser("ask", parents=[to_box], help="ask a box, and print its words as they come")
    ask.add_argument("text", nargs="?", help="the prompt; read from standard input if it is left out or `-`")
    ask.add_argument("--system", metavar="TEXT", help="a system message before the prompt")
    ask.add_argument("--max-tokens", type=int, metavar="N")
    ask.add_argument("--temperature", type=float, metavar="T")
    ask.add_argument("--seed", type=int, metavar="N")
    ask.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated")
    ask.add_argument("--deadline", type=float, metavar="SECONDS", dest="deadline_s")
    ask.add_argument("--id", metavar="ID", help="the job's id; by default a new one")
    ask.add_argument("--json", action="store_true", help="print each event as a line of JSON")
    ask.set_defaults(command=_ask)

    cancel = commands.add_parser("cancel", parents=[to_box], help="end a job that `ask` began")
    cancel.add_argument("id", help="the job's id")
    cancel.set_defaults(command=_cancel)


def request_of(args: argparse.Namespace) -> dict[str, Any]:
    """Build the contract's request from the arguments."""
    text = args.text
    if text in (None, "-"):
        text = sys.stdin.read().strip()
    if not text:
        raise ClientError('there is nothing to ask: give a prompt, as in `edge-slm ask "What is MQTT?"`')
    request: dict[str, Any] = {"id": args.id or secrets.token_hex(8)}
    if args.system is None:
        request["prompt"] = text
    else:
        request["messages"] = [{"role": "system", "content": args.system}, {"role": "user", "content": text}]
    for name in ("max_tokens", "temperature", "seed", "stop", "deadline_s"):
        value = getattr(args, name)
        if value is not None:
            request[name] = value
    return request


def _settings(args: argparse.Namespace) -> Settings:
    overrides = list(args.set)
    if args.broker is not None:
        address = parse(args.broker)
        overrides += [f"mqtt.host={address.host}", f"mqtt.port={address.port}"]
    if args.node is not None:
        overrides.append(f"device.id={args.node}")
    return load(args.config, overrides).settings


def _ask(args: argparse.Namespace) -> int:
    settings, request = _settings(args), request_of(args)
    return asyncio.run(_stream(settings, request, as_json=args.json))


async def _stream(settings: Settings, request: Mapping[str, Any], *, as_json: bool) -> int:
    answer = Answer()
    async with Client(settings.mqtt, settings.device.id, _NAME) as client:
        await client.online(_ONLINE_S)
        try:
            async for event in client.ask(request):
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
    if not as_json and final["error"] is not None:
        print(f"edge-slm: {final['error']['code']}: {final['error']['message']}", file=sys.stderr)
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
            return notice + self._rest(body["text"])
        # Chunks are best effort: after a gap the final, which has the whole text, tells the rest.
        self._gap = self._gap or body["seq"] != self._next_seq
        self._next_seq += 1
        if self._gap:
            return notice
        self._shown += body["text"]
        return notice + str(body["text"])

    def _rest(self, text: str) -> str:
        if text.startswith(self._shown):
            rest = text[len(self._shown) :]
            return f"{rest}\n" if text else ""
        return f"\n{text}\n"


def _cancel(args: argparse.Namespace) -> int:
    settings = _settings(args)

    async def cancel() -> None:
        async with Client(settings.mqtt, settings.device.id, _NAME) as client:
            await client.cancel(args.id)

    asyncio.run(cancel())
    return 0
