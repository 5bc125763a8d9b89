"""What is asked about each camera's pictures: the configuration's word, and over it the retained topic's.

Pure: it is told of messages, and asked for a request's defaults.
"""

from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import from_json

from agent.contract.jobs import Frame, Job
from agent.contract.requests import Defaults
from agent.settings import Camera, Source

# Whoever may write to the config topics chooses the names there. A box has tens of cameras; this is 8 MB at the most.
_MOST_TOLD = 1000
_MOST_BYTES = 8 << 10


class Cameras:
    """The cameras' policies.

    Args:
        configured: by the cameras' names, from the box's configuration.
        sources: by their names, for the questions of those whose cameras have none.

    """

    def __init__(self, configured: Mapping[str, Camera], sources: Mapping[str, Source]) -> None:
        self._configured = configured
        self._prompts = {name: source.prompt for name, source in sources.items()}
        self._told: dict[str, Camera] = {}

    def __repr__(self) -> str:
        return f"<Cameras {len(self._configured)} configured, {len(self._told)} told>"

    def tell(self, camera: str, payload: bytes) -> str | None:
        """Take a message of a camera's config topic; an empty one takes the last one back.

        Returns what is wrong with it, in which case the last one stands; None if nothing is.
        """
        if not payload.strip():
            self._told.pop(camera, None)
        elif len(payload) > _MOST_BYTES:
            return f"it has {len(payload):,} bytes, and a camera's policy may have {_MOST_BYTES:,}"
        elif camera not in self._told and len(self._told) >= _MOST_TOLD:
            return f"there are {_MOST_TOLD:,} cameras already: take some back, with empty retained messages"
        else:
            try:
                self._told[camera] = _over(self._configured.get(camera, Camera()), payload)
            except ValueError as error:
                # It may have said so, and nobody can tell: until a good one comes, the pictures stay here.
                self._told[camera] = self._policy(camera).model_copy(update={"private": True})
                return str(error)
        return None

    def forget(self) -> None:
        """Take back all that was told."""
        self._told.clear()

    def keeps(self, job: Job) -> bool:
        """Tell whether a job's camera is to be kept on the box, by what is told of it now."""
        if job.camera is None:
            return False
        policy = self._policy(job.camera)
        return policy.private or policy.placement == "local_only"

    def defaults(self, camera: str, client: str) -> Defaults:
        """Return what a request about a camera asks for where it does not say; ``client`` may be a source."""
        policy = self._policy(camera)
        fields = {
            "prompt": policy.prompt or self._prompts.get(client),
            "detail": policy.detail,
            "max_tokens": policy.max_tokens,
            "priority": policy.priority,
            "placement": policy.placement,
            "private": policy.private,
        }
        return Defaults(
            {name: value for name, value in fields.items() if value is not None},
            Frame(min_interval_s=policy.min_interval_s, similar_bits=policy.skip_similar),
        )

    def _policy(self, camera: str) -> Camera:
        return self._told.get(camera) or self._configured.get(camera, Camera())


def _over(base: Camera, payload: bytes) -> Camera:
    """Lay a message over a camera's policy; ValueError says what is wrong with it."""
    said = from_json(payload, allow_inf_nan=False, cache_strings=False)
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  the message's fault, not a caller's
    try:
        told = Camera.model_validate({**base.model_dump(exclude_unset=True), **said})
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}") from None
    # What the configuration keeps on the box, nobody can let out over MQTT.
    kept: dict[str, object] = {"private": base.private or told.private}
    if base.placement == "local_only":
        kept["placement"] = base.placement
    return told.model_copy(update=kept)
