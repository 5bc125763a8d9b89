"""What a box runs with: its own configuration, and over it the layer from afar that it holds, if that can be used."""

from pathlib import Path

from agent import __version__
from agent.contract.topics import Topics
from agent.layers import ConfigError, Layer, Loaded, Origin
from agent.remote.kept import Kept
from agent.remote.layer import Read, digest, laid_over
from agent.settings import Settings


def in_force(read: Read) -> tuple[Loaded, str | None]:
    """Return what a box would start with now, and a sentence if it holds a layer that is not in it.

    That a model of the layer is not there, or does not fit, is only seen when the box starts.

    Raises:
        ConfigError: the box's own configuration cannot be used.

    """
    own = read()
    folder = folder_of(own.settings)
    if not own.settings.remote_config:
        return own, None
    try:
        kept = Kept(folder, circumstances(own.settings))
    except OSError as error:
        left_out = f"{folder} cannot be read ({error.strerror}): what was sent from afar is left out, if there is any"
        return own, f"{left_out}; ask again as the user of the service"
    if not kept.good.strip():
        return own, None
    why = kept.failed(digest(kept.good))
    if why is None:
        try:
            return laid_over(read, name_of(own.settings), kept.good), None
        except ConfigError as wrong:
            why = "; ".join(str(wrong).splitlines())
    return alone(own), f"what was sent from afar is left out, and nothing leaves the box until it is mended: {why}"


def alone(own: Loaded) -> Loaded:
    """Return a box's own configuration without the layer that it holds.

    That may have said what is to stay on the box, which nobody can tell any more: so nothing leaves it.
    """
    name = f"{name_of(own.settings)}, which is left out"
    stays = Layer({"placement": "local_only"}, {("placement",): Origin(name)})
    return Loaded(own.settings.model_copy(update={"placement": "local_only"}), (*own.layers, stays))


def circumstances(own: Settings) -> str:
    """Return what a layer's trial depends on beside the layer: the agent's version, and the box's own files.

    These are read anew for a trial, with a mistake that waits in them: what fails over it is not to blame for good.
    """
    return f"{__version__} {digest(own.model_dump_json().encode())}"


def name_of(settings: Settings) -> str:
    """Return what a layer from afar is called."""
    return Topics(settings.mqtt.root, settings.device.id).config_desired


def folder_of(settings: Settings) -> Path:
    """Return where it is kept."""
    return settings.state_dir / "desired"
