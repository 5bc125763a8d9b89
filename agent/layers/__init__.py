"""The layers of a box's configuration, from its files to its command line, read into `Settings`.

Later over earlier: the defaults in `agent.settings` < each file in order < what was sent from afar < the environment <
the command line. A fleet's folder stands for its base, its groups' files and the device's own, in this order.
Mappings merge key by key; everything else replaces what was there.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

from agent.keys import dotted
from agent.layers import fleet
from agent.layers.explaining import Explanation, explain
from agent.layers.merging import Loaded, leaves, merge, show, together
from agent.layers.reading import (
    ConfigError,
    Layer,
    Origin,
    Problem,
    read_environment,
    read_override,
    read_text,
)
from agent.settings import Device

__all__ = ["ConfigError", "Explanation", "Layer", "Loaded", "Origin", "Problem", "explain", "load", "said", "show"]


def load(
    files: Sequence[pathlib.Path],
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    *,
    remote: tuple[str, str | bytes] | None = None,
) -> Loaded:
    """Read all layers.

    Args:
        files: YAML files or fleets' folders, later over earlier.
        overrides: ``dotted.key=value`` from the command line, the value in YAML.
        environ: the environment; by default this process's own.
        remote: what was sent from afar, and what to call it.

    Raises:
        ConfigError: with every problem that was found.

    """
    above = [*read_environment(os.environ if environ is None else environ), *map(read_override, overrides)]
    device = together(above).get("device", {}).get("id") or Device().id
    below = [layer for file in files for layer in fleet.files(file, device)]
    return merge([*below, *([read_text(*remote, sent=True)] if remote else ()), *above])


def said(name: str, text: str | bytes) -> Mapping[str, Origin]:
    """Return the dotted keys that a text sets, each with its line; whether their values are right is `load`'s to say.

    Raises:
        ConfigError: it cannot be read, or has keys that there are not.

    """
    layer = read_text(name, text, sent=True)
    if layer.problems:
        raise ConfigError(layer.problems)
    return {dotted(path): layer.origins[path] for path, _ in leaves(layer.tree)}
