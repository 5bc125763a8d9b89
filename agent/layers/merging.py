"""Layers, one over the other, as the settings that they come to."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent import keys
from agent.keys import Path
from agent.layers.reading import MOST_PROBLEMS, ConfigError, Layer, Problem, Tree, name_of, shown
from agent.settings import Settings


@dataclass(frozen=True, slots=True)
class Loaded:
    """The effective settings, and the layers that they come from, the lowest first."""

    settings: Settings
    layers: tuple[Layer, ...]


def merge(layers: Sequence[Layer]) -> Loaded:
    """Lay each layer over those before it.

    Raises:
        ConfigError: with every problem that was found.

    """
    problems = [problem for layer in layers for problem in layer.problems]
    try:
        settings = Settings(**together(layers))
    except ValidationError as invalid:
        problems += [_complaint(error, layers) for error in invalid.errors(include_url=False)[:MOST_PROBLEMS]]
    if problems:
        raise ConfigError(problems)
    return Loaded(settings, tuple(layers))


def together(layers: Sequence[Layer]) -> Tree:
    """Return what layers say: mappings merge key by key, and everything else replaces what was there."""
    tree: Tree = {}
    for layer in layers:
        tree = _merged(tree, layer.tree)
    return tree


def leaves(tree: Tree, above: Path = ()) -> Iterator[tuple[Path, object]]:
    """Yield each key of nested ones, with its value; a section that has none is one itself."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name), value


def show(loaded: Loaded) -> str:
    """Render the effective configuration as YAML, with its secrets masked."""
    return yaml.safe_dump(loaded.settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _merged(under: Tree, over: Tree) -> Tree:
    """Return a new tree; layers are shared by the devices of a fleet, and stay as they are."""
    tree = dict(under)
    for name, value in over.items():
        below = tree.get(name)
        tree[name] = _merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return tree


def _complaint(error: ErrorDetails, layers: Sequence[Layer]) -> Problem:
    """Say what is wrong with a value, who set it, and what was expected."""
    # Where the name of a user's choice is wrong, pydantic adds a step that says so.
    path = tuple(str(step) for step in error["loc"] if step != "[key]")
    parts = (path[:n] for n in range(len(path), 0, -1))
    origins = (layer.origins.get(part) for part in parts for layer in reversed(layers))
    kind, value = keys.at(path), error["input"]
    given = f", not `{shown(value)}`" if isinstance(value, str) and not (kind and kind.secret) else ""
    # pydantic's "Input should be a valid integer, unable to parse string as an integer" and the like.
    expected = re.sub(r"^(Value error,|Value|Input|String) |, unable to parse.*", "", error["msg"])
    message = f"`{name_of(path)}`{'' if expected.startswith('should') else ':'} {expected}{given}"
    return Problem(message, next(filter(None, origins), None), name_of(path))
