"""With whom an operator speaks, and as whom: the fleet's broker, and a login of the operator's own."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.layers.merging import merge
from agent.layers.reading import Layer, Tree, read_environment, read_file, read_override
from agent.settings import Mqtt

# Of what boxes share: where the broker is, and how to know it. Their login and certificate are theirs, and their files
# are not on the operator's machine.
_SHARED = ("host", "port", "root", "protocol", "tls")
_SHARED_TLS = ("ca_file",)


def operators(
    folder: Path, files: Sequence[Path], overrides: Sequence[str], environ: Mapping[str, str] | None = None
) -> Mqtt:
    """Return the broker that a fleet's base names, with the login that the operator's own layers give.

    Args:
        folder: the fleet's.
        files: the operator's, later over earlier.
        overrides: ``dotted.key=value``, over everything else.
        environ: the operator's environment; by default this process's.

    Raises:
        ConfigError: something in these layers is wrong.

    """
    base = read_file(folder / "base.yaml")
    mqtt = _only(base.tree.get("mqtt"), _SHARED)
    if mqtt.get("tls"):
        mqtt["tls"] = _only(mqtt["tls"], _SHARED_TLS)
    shared = Layer({"mqtt": mqtt}, base.origins, base.problems)
    above = [*read_environment(os.environ if environ is None else environ), *map(read_override, overrides)]
    return merge([shared, *map(read_file, files), *above]).settings.mqtt


def _only(section: Tree | None, names: Sequence[str]) -> Tree:
    return {name: value for name, value in (section or {}).items() if name in names}
