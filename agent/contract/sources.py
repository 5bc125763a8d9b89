"""Topics of others on which frames arrive, such as Frigate's snapshots."""

from dataclasses import dataclass

from agent.contract.topics import Kind, Route, is_identifier

# The level of a source's topic that names the camera.
CAMERA = "{camera}"


@dataclass(frozen=True, slots=True)
class Source:
    """A topic filter whose messages are frames.

    Args:
        client: under whose name their answers go out.
        pattern: an MQTT topic filter in which one level may be ``{camera}``.
        camera: the camera that they are of, if no level says it.

    """

    client: str
    pattern: str
    camera: str | None = None

    @property
    def filter(self) -> str:
        """The topic filter to subscribe to."""
        return "/".join("+" if level == CAMERA else level for level in self.pattern.split("/"))

    def read(self, topic: str) -> Route | None:
        """Read a topic; None if it is not this source's, or the camera's level is no identifier."""
        wanted, levels = self.pattern.split("/"), topic.split("/")
        if wanted[-1] == "#":
            wanted = wanted[:-1]
            levels = levels[: len(wanted)]
        if len(wanted) != len(levels):
            return None
        camera = self.camera
        for want, level in zip(wanted, levels, strict=True):
            if want == CAMERA:
                camera = level
            elif want not in ("+", level):
                return None
        if camera is None or not is_identifier(camera):
            return None
        return Route(Kind.IMAGE, self.client, camera)
