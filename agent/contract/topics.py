"""The topic tree, in both directions: building names and reading them."""

import re
from dataclasses import dataclass
from enum import StrEnum

_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}\Z", re.ASCII)
_RESPONSE_TOPIC_BYTES = 256
# mosquitto 2.0.11 closed the connection of whoever published to more than 200: ours, and again at each reconnect, since
# the final waits in the outbox. One request kept a box offline for good. Other brokers' bounds are lower.
_RESPONSE_TOPIC_LEVELS = 32


def is_identifier(text: str) -> bool:
    """Whether ``text`` may be a node, client, job or camera name; it is then also safe inside a topic."""
    return _IDENTIFIER.match(text) is not None


class Kind(StrEnum):
    """What a message on a request topic asks for."""

    TEXT = "text"
    IMAGE = "image"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Route:
    """A request topic, read: who asks for what. ``camera`` is set for `Kind.IMAGE` alone.

    ``pool`` is the name that was asked, where it is not the box's own.
    """

    kind: Kind
    client: str
    camera: str | None = None
    pool: str | None = None


@dataclass(frozen=True, slots=True)
class Topics:
    """The names of one node's topics under one root.

    Args:
        root: first levels of every topic, such as ``slm`` or ``site7/slm``.
        node: this box's identifier.
        pool: the name under which it shares work with others, if it does.

    """

    root: str
    node: str
    pool: str | None = None

    @property
    def status(self) -> str:
        """Retained ``online`` or ``offline``, the latter also as last will."""
        return f"{self.root}/{self.node}/status"

    @property
    def info(self) -> str:
        """Retained birth message: version, models, limits."""
        return f"{self.root}/{self.node}/info"

    @property
    def metrics(self) -> str:
        """Numbers, every few seconds."""
        return f"{self.root}/{self.node}/metrics"

    @property
    def config_desired(self) -> str:
        """Retained settings that somebody wants this box to have, over those of its files."""
        return f"{self.root}/{self.node}/config/desired"

    @property
    def config_reported(self) -> str:
        """Retained answer to those: what became of them."""
        return f"{self.root}/{self.node}/config/reported"

    @property
    def requests(self) -> tuple[str, ...]:
        """Topic filters that bring every request of every client, and of the pool's requests this box's share.

        A pool's cancels come to every member: nobody else knows which one has the job.
        """
        own = f"{self.root}/{self.node}/req/+"
        mine = (f"{own}/text", f"{own}/image/+", f"{own}/cancel")
        return mine if self.pool is None else (*mine, *self.shared(self.pool))

    def shared(self, pool: str) -> tuple[str, ...]:
        """Topic filters of a member of ``pool``."""
        asked = f"{self.root}/{pool}/req/+"
        return (f"$share/{pool}/{asked}/text", f"$share/{pool}/{asked}/image/+", f"{asked}/cancel")

    def camera_config(self, camera: str) -> str:
        """Name the retained topic with a camera's prompt and policy; ``+`` for the filter that brings all."""
        return f"{self.root}/{self.node}/config/camera/{camera}"

    def read_camera_config(self, topic: str) -> str | None:
        """Read whose policy a topic has; None if it is no such topic."""
        prefix = self.camera_config("")
        camera = topic.removeprefix(prefix)
        return camera if topic.startswith(prefix) and is_identifier(camera) else None

    def request(self, client: str, kind: Kind, camera: str | None = None) -> str:
        """Name the topic on which ``client`` asks for ``kind``."""
        base = f"{self.root}/{self.node}/req/{client}/{kind}"
        return base if camera is None else f"{base}/{camera}"

    def results(self, client: str, job_id: str, pool: str | None = None) -> str:
        """Name the topic above a job's ``state``, ``chunk`` and ``final``; a pool's answers are under its own name."""
        return f"{self.root}/{pool or self.node}/res/{client}/{job_id}"

    def is_final(self, topic: str, client: str, job_id: str) -> bool:
        """Whether a topic is the usual one of a job's final, this node's or a pool's."""
        asked = topic.removeprefix(f"{self.root}/").removesuffix(f"/res/{client}/{job_id}/final")
        return is_identifier(asked) and topic == f"{self.results(client, job_id, asked)}/final"

    def read(self, topic: str) -> Route | None:
        """Read a topic of `requests`; None if it is not one, or names a client or camera that is no identifier."""
        route = self.read_any(topic)
        return route if route is not None and route.pool in (None, self.pool) else None

    def read_any(self, topic: str) -> Route | None:
        """Read a request topic of whatever node; see `read`. One that is not this node counts as a pool."""
        if not topic.startswith(f"{self.root}/"):
            return None
        match topic[len(self.root) + 1 :].split("/"):
            case [node, "req", client, *rest] if is_identifier(node) and is_identifier(client):
                return _route(client, rest, None if node == self.node else node)
            case _:
                return None

    def refusal_of_response_topic(self, topic: str, client: str, pool: str | None = None) -> str | None:
        """Say why an MQTT 5 response topic may not be used, or None if it may; ``pool`` is as in `Route`.

        Without this guard the agent is a confused deputy: a client that the broker's ACL keeps from a topic
        would have the agent publish there in its stead.
        """
        if len(topic.encode("utf-8", "surrogatepass")) > _RESPONSE_TOPIC_BYTES:
            return f"it is longer than {_RESPONSE_TOPIC_BYTES} bytes"
        if topic.count("/") >= _RESPONSE_TOPIC_LEVELS:
            return f"it has more than {_RESPONSE_TOPIC_LEVELS} levels"
        if any(sign in topic for sign in "+#"):
            return "it holds a wildcard"
        if not topic.isprintable():  # the standard lets a broker close the connection for control characters
            return "it holds a character that cannot be printed"
        own = (f"{self.root}/{pool or self.node}/res/{client}/", f"clients/{client}/")
        if not topic.startswith(own) or topic in own:
            return f"it is outside {own[0]}… and {own[1]}…"
        return None


def _route(client: str, asked: list[str], pool: str | None) -> Route | None:
    match asked:
        case ["text"]:
            return Route(Kind.TEXT, client, pool=pool)
        case ["cancel"]:
            return Route(Kind.CANCEL, client, pool=pool)
        case ["image", camera] if is_identifier(camera):
            return Route(Kind.IMAGE, client, camera, pool)
        case _:
            return None
