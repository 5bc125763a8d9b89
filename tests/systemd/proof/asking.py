"""A device of the box's: asks over MQTT, and counts the answers."""

import base64
import json
import struct
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.systemd.proof.machine import Failed, check


class Device:
    """A client that stays connected, whatever the box does.

    Args:
        node: the box.
        port: of the broker, on this machine.

    """

    def __init__(self, node: str, port: int = 1883) -> None:
        self._node = node
        self._heard = threading.Condition()
        self._finals: dict[str, list[bytes]] = {}
        self._words: set[str] = set()
        self._status: list[tuple[float, bytes]] = []
        self._mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="proof", clean_session=False)
        self._mqtt.username_pw_set("proof", "proof")
        self._mqtt.on_message = self._received
        self._mqtt.on_connect = lambda *_: self._subscribe()
        self._subscribed = threading.Event()
        self._mqtt.on_subscribe = lambda *_: self._subscribed.set()
        self._mqtt.connect("127.0.0.1", port)
        self._mqtt.loop_start()
        check(self._subscribed.wait(10), "the broker does not answer")

    def _subscribe(self) -> None:
        self._mqtt.subscribe([(f"slm/{self._node}/res/proof/#", 1), (f"slm/{self._node}/status", 1)])

    def _received(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        with self._heard:
            match message.topic.split("/")[2:]:
                case ["res", "proof", id_, "final"]:
                    self._finals.setdefault(id_, []).append(bytes(message.payload))
                case ["res", "proof", id_, "chunk"]:
                    self._words.add(id_)
                case ["status"]:
                    self._status.append((time.monotonic(), bytes(message.payload)))
            self._heard.notify_all()

    def _wait(self, holds: Callable[[], bool], promise: str, timeout: float) -> None:
        with self._heard:
            check(self._heard.wait_for(holds, timeout), f"{promise} (waited {timeout:.0f} s)")

    def ask(self, id_: str, prompt: str = "What is the capital of France?", **fields: Any) -> str:
        """Send a text job; returns its id when the broker has it."""
        self._publish("text", json.dumps({"id": id_, "prompt": prompt, **fields}).encode())
        return id_

    def show(self, id_: str) -> str:
        """Send a picture of a red square as a job."""
        job = {"id": id_, "prompt": "What is in the picture?", "image": base64.b64encode(_red_square()).decode()}
        self._publish("image/porch", json.dumps(job).encode())
        return id_

    def _publish(self, last: str, payload: bytes) -> None:
        self._mqtt.publish(f"slm/{self._node}/req/proof/{last}", payload, qos=1).wait_for_publish(30)

    def began(self, id_: str, timeout: float = 180) -> None:
        """Wait for the first word of a job."""
        self._wait(lambda: id_ in self._words, f"{id_} has no word", timeout)

    def final(self, id_: str, timeout: float = 60) -> dict[str, Any]:
        """Wait for a job's answer, which must be a success."""
        answer = self.verdict(id_, timeout)
        check(answer["state"] == "SUCCEEDED", f"{id_} ended {answer['state']}: {answer['error']}")
        return answer

    def verdict(self, id_: str, timeout: float = 60) -> dict[str, Any]:
        """Wait for a job's answer, whatever it is; there must be one, the same each time that it comes."""
        self._wait(lambda: id_ in self._finals, f"{id_} has no answer", timeout)
        with self._heard:
            finals = [json.loads(each) for each in self._finals[id_]]
        check(all(each == finals[0] for each in finals), f"{id_} has two different answers")
        answer: dict[str, Any] = finals[0]
        return answer

    def at_most(self, count: int, ids: Sequence[str], done: threading.Event) -> None:
        """Wait until fewer than so many jobs have no answer, or it is done."""
        with self._heard:
            while not done.is_set() and sum(each not in self._finals for each in ids) >= count:
                self._heard.wait(1)

    def has_final(self, id_: str) -> bool:
        """Whether an answer has come."""
        with self._heard:
            return id_ in self._finals

    def away_s(self) -> float:
        """Return how long the box was last not online, in seconds, by its retained status."""
        with self._heard:
            gone = max((at for at, status in self._status if status == b"offline"), default=None)
            back = max((at for at, status in self._status if status == b"online"), default=None)
        if gone is None or back is None or back < gone:
            raise Failed("the box was not offline, and online again")
        return back - gone


def _red_square() -> bytes:
    """Return a PNG of 120 by 120 pixels, white but for a square in the middle."""
    white, red = b"\xff\xff\xff", b"\xdc\x1e\x1e"
    empty, crossed = white * 120, white * 30 + red * 60 + white * 30
    rows = b"".join(b"\0" + (crossed if 30 <= row < 90 else empty) for row in range(120))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 120, 120, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
