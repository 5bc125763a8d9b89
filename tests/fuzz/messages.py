"""What the fuzz says to a box: hostile messages of every kind, and an honest job among a hundred of them.

Pure: the same seed makes the same messages. Whoever asks is new in each message, so that every answer can be held
against the message that it is for, even where the box has to make up its id.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal

from paho.mqtt.client import topic_matches_sub

from agent.contract.topics import Topics
from tests.contract.pictures import PNG, text
from tests.fuzz import packets, payloads, properties
from tests.fuzz.payloads import Hostile, Maker
from tests.fuzz.properties import CAMERA, NODE

# Of the config topics: few, so that what the box remembers of them is all there early, and memory can be compared.
_TOLD = 40
_QOS = (0, 1, 1, 1, 2)
_TOPICS = Topics(*NODE.split("/"))
_FILTERS = (*_TOPICS.requests, _TOPICS.camera_config("+"))


@dataclass(frozen=True, slots=True)
class Shot:
    """One message.

    Attributes:
        kind: how it was made.
        client: who asks, and nobody else does.
        properties: of MQTT 5, by paho's names; a shot with some is not to be sent in 3.1.1.
        finals: how many distinct ones must come; ``most one`` where nothing was promised.
        job_id: under which they must come, if that is sure.
        honest: whether it must succeed.
        packet: to be sent as it is, over a connection of its own, in this version of MQTT.
        repeat: whether its client has said it before.

    """

    kind: str
    client: str
    topic: str = ""
    payload: bytes = b""
    qos: int = 1
    retain: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)
    finals: Literal["none", "one", "most one"] = "none"
    job_id: str | None = None
    honest: bool = False
    packet: tuple[int, bytes] | None = None
    repeat: bool = False

    @property
    def sort(self) -> str:
        """What it counts as: not everything that is sent is hostile, and not everything hostile gets to the box."""
        if self.packet is not None:
            return "malformed packets"
        if self.repeat:
            return "repeats"
        if self.kind == "marker":
            return "markers"
        if self.kind == "victim" or self.honest:
            return "honest"
        ours = any(topic_matches_sub(each, self.topic) for each in _FILTERS)
        return "hostile, on the box's topics" if ours else "hostile, on other topics"


class Fuzz:
    """Makes messages, for ever.

    Args:
        seed: of everything.

    """

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self._number = 0
        # What can be said again, and what may be canceled: nobody else cares how these end.
        self._named: deque[Shot] = deque(maxlen=100)
        self._victims: deque[Shot] = deque(maxlen=20)
        self._kinds: dict[Callable[[], Shot], int] = {
            self._hostile_text: 500,
            self._hostile_image: 150,
            self._worker: 12,
            self._victim: 2,
            self._again: 40,
            self._cancel: 70,
            self._camera_config: 60,
            self._nowhere: 100,
            self._malformed: 20,
            self._correlated: 30,
            self._honest_text: 8,
            self._honest_image: 2,
        }

    def __iter__(self) -> Iterator[Shot]:
        kinds, weights = tuple(self._kinds), tuple(self._kinds.values())
        while True:
            self._number += 1
            (kind,) = self._rng.choices(kinds, weights)
            shot = kind()
            if shot.packet is None and not shot.honest and self._rng.random() < 0.3:
                shot = self._decorated(shot)
            if shot.finals == "one" and shot.job_id is not None and not shot.repeat:
                self._named.append(shot)
            yield shot

    @property
    def _client(self) -> str:
        return f"c{self._number}"

    @property
    def _id(self) -> str:
        return f"j{self._number}"

    def _request(self, kind: str, tail: str, hostile: Hostile) -> Shot:
        return Shot(
            kind,
            self._client,
            f"{NODE}/req/{self._client}/{tail}",
            hostile.payload,
            self._rng.choice(_QOS),
            self._rng.random() < 0.02,
            finals="one",
            job_id=hostile.job_id,
        )

    def _hostile_text(self) -> Shot:
        (make,) = self._rng.choices(_TEXTS, _TEXT_WEIGHTS)
        return self._request(f"text.{make.__name__}", "text", make(self._rng, self._id))

    def _hostile_image(self) -> Shot:
        (make,) = self._rng.choices(_IMAGES, _IMAGE_WEIGHTS)
        camera = self._rng.choice((CAMERA, CAMERA, "yard", "A" * 64))
        shot = self._request(f"image.{make.__name__}", f"image/{camera}", make(self._rng, self._id))
        # Of a raw frame at QoS 0 nobody was promised anything.
        return replace(shot, finals="most one") if shot.qos == 0 else shot

    def _worker(self) -> Shot:
        make = self._rng.choice((payloads.hard, payloads.hard, payloads.damaged_frame, payloads.unpacking_frame))
        tail = "text" if make is payloads.hard else f"image/{CAMERA}"
        return replace(self._request(f"worker.{make.__name__}", tail, make(self._rng, self._id)), qos=1)

    def _victim(self) -> Shot:
        payload = b'{"id":"%s","prompt":"Tell me a story.","max_tokens":150}' % self._id.encode()
        shot = replace(self._request("victim", "text", Hostile(payload, self._id)), qos=1)
        self._victims.append(shot)
        return shot

    def _again(self) -> Shot:
        """Say again what was said: the same id, nothing new to answer."""
        if not self._named:
            return self._honest_text()
        return replace(self._rng.choice(self._named), repeat=True)

    def _cancel(self) -> Shot:
        client, payload = self._client, self._rng.choice(_CANCELS)
        if self._victims and self._rng.random() < 0.1:
            victim = self._victims.popleft()
            client, payload = victim.client, str(victim.job_id).encode()
        return Shot("cancel", client, f"{NODE}/req/{client}/cancel", payload, self._rng.choice(_QOS))

    def _camera_config(self) -> Shot:
        camera = self._rng.choice((CAMERA, f"told{self._rng.randrange(_TOLD)}", "ä", "", "x" * 65, "a/b"))
        # The camera that is asked about hears nothing that could be meant.
        payload = self._rng.choice(_NO_POLICIES if camera == CAMERA else _NO_POLICIES + _POLICIES)
        topic = f"{NODE}/config/camera/{camera}"
        return Shot("config", self._client, topic, payload, self._rng.choice(_QOS), self._rng.random() < 0.5)

    def _nowhere(self) -> Shot:
        topic = self._rng.choice(_NOWHERE).format(base=f"{NODE}/req", client=self._client)
        return Shot("nowhere", self._client, topic, b'{"id":"j","prompt":5}', self._rng.choice(_QOS))

    def _malformed(self) -> Shot:
        """Make a packet that the broker may well take for one, so that it reaches the box."""
        topic = f"{NODE}/req/{self._client}/text".encode()
        packet = packets.malformed(self._rng, topic, b'{"id":"%s","prompt":5}' % self._id.encode())
        return Shot("malformed", self._client, finals="most one", packet=packet)

    def _correlated(self) -> Shot:
        """Make a request whose id is in its correlation data alone."""
        make = self._rng.choice((payloads.noise, payloads.cut_frame, payloads.polyglot))
        tail = "text" if make is payloads.noise else f"image/{CAMERA}"
        hostile = Hostile(make(self._rng, self._id).payload, self._id)
        return replace(
            self._request(f"correlated.{make.__name__}", tail, hostile),
            properties={"CorrelationData": self._id.encode()},
        )

    def _honest_text(self) -> Shot:
        payload = b'{"id":"%s","prompt":"What is the capital of France?","max_tokens":3}' % self._id.encode()
        return replace(self._request("honest.text", "text", Hostile(payload, self._id)), honest=True)

    def _honest_image(self) -> Shot:
        payload = b'{"id":"%s","prompt":"What is it?","detail":"low","max_tokens":3,"image":"%s"}'
        hostile = Hostile(payload % (self._id.encode(), text(PNG).encode()), self._id)
        return replace(self._request("honest.image", f"image/{CAMERA}", hostile), honest=True)

    def _decorated(self, shot: Shot) -> Shot:
        """Add MQTT 5 properties to a message."""
        added = dict(shot.properties)
        for _ in range(self._rng.randint(1, 3)):
            name, value = properties.one(self._rng, shot.client)
            added.setdefault(name, value)
        # What expires at once may never arrive.
        fleeting = added.get("MessageExpiryInterval") == 0 and shot.finals == "one"
        return replace(shot, properties=added, finals="most one" if fleeting else shot.finals)


_CANCELS = (
    *(b"", b"j1", b" j1\n", b"j1/x", b"\xff", b"{", b"{}", b"[]", b'"j1"', b"null", b"x" * 65, b"x" * 2000, b"\0"),
    *(b'{"id":5}', b'{"id":null}', b'{"id":"j1","id":{}}', b'{"id":["j1"]}', b'{"id":"unknown"}', b'{"id":"\\ud800"}'),
    *(
        b"[" * 1000,
        b'{"a":' * 200,
        b'{"id":1e999}',
        b'{"id":' + b"9" * 900 + b"}",
        b"\xef\xbb\xbfj1",
        "j1".encode("utf-16"),
    ),
)
_POLICIES = (
    *(b"", b"{}", b'{"prompt":"What is it?"}', b'{"private":true}', b'{"min_interval_s":1e300}', b'{"max_tokens":1}'),
    b'{"prompt":"' + b"x" * 8000 + b'"}',
)
_NO_POLICIES = (
    *(b"\xff\xd8\xff", b"{", b"[]", b"5", b"null", b'{"prompt":5}', b'{"prompt":""}', b'{"unknown":1}', b"[" * 5000),
    *(
        b'{"min_interval_s":-1}',
        b'{"min_interval_s":NaN}',
        b'{"skip_similar":64}',
        b'{"max_tokens":1e999}',
        b"x" * 9000,
    ),
    *(b'{"prompt":"\\ud800"}', b'{"private":"no"}', b'{"placement":"elsewhere"}', b'{"":1}', b"\xef\xbb\xbf{}"),
)
_NOWHERE = (
    *("{base}//text", "{base}/{client}/text/", "{base}/{client}/text/x", "{base}/{client}/Text", "{base}/{client}"),
    *(
        "{base}/{client}/image",
        "{base}/{client}/image/",
        "{base}/{client}/image/a/b",
        "{base}/{client}/image/ä",
        "{base}",
    ),
    *("{base}/ä/text", "{base}/$x/text", "{base}/ /text", "{base}/../text", "{base}/{client} /text", "{base}/%2b/text"),
    *("{base}/" + "x" * 65 + "/text", "{base}/" + "x" * 60_000 + "/text", "{base}" + "/" * 150, "{base}/\u202e/cancel"),
    *("{base}/{client}/image/" + "y" * 65, "{base}//image/", "{base}//cancel", "/{base}/{client}/text", "$x/{base}"),
    *(
        "slm/box2/req/{client}/text",
        "slm//req/{client}/text",
        "SLM/box1/req/{client}/text",
        "slm/box1/req2/{client}/text",
    ),
)
_TEXT_MAKERS: dict[Maker, float] = {
    payloads.noise: 6,
    payloads.blank: 3,
    payloads.truncated: 10,
    payloads.mutated: 10,
    payloads.nested: 3,
    payloads.numbers: 10,
    payloads.wrong_type: 12,
    payloads.unknown: 5,
    payloads.duplicate: 3,
    payloads.surrogate: 5,
    payloads.encoding: 5,
    payloads.no_id: 5,
    payloads.odd_id: 4,
    payloads.turns: 8,
    payloads.no_picture: 2,
    payloads.oversize: 0.3,
}
_IMAGE_MAKERS: dict[Maker, float] = {
    payloads.noise: 1,
    payloads.blank: 1,
    payloads.no_picture: 5,
    payloads.turns: 2,
    payloads.truncated: 2,
    payloads.wrong_type: 2,
    payloads.cut_frame: 5,
    payloads.bomb: 5,
    payloads.polyglot: 5,
}
_TEXTS, _TEXT_WEIGHTS = tuple(_TEXT_MAKERS), tuple(_TEXT_MAKERS.values())
_IMAGES, _IMAGE_WEIGHTS = tuple(_IMAGE_MAKERS), tuple(_IMAGE_MAKERS.values())
