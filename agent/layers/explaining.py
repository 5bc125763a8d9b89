"""Why a key has the value that it has: who set it, and what that covered."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic_core import PydanticUndefined, to_jsonable_python

from agent import keys
from agent.errors import UsageError
from agent.keys import Path, dotted
from agent.layers.merging import Loaded, leaves
from agent.layers.reading import Layer, Origin

_MASK = "**********"  # as pydantic masks a secret


@dataclass(frozen=True, slots=True)
class Said:
    """What one source says of a key."""

    origin: Origin
    value: object


@dataclass(frozen=True, slots=True)
class Explanation:
    """A key's effective value, and all that was said of it: first what won, then what it covered, the next below first.

    Values are as JSON knows them, those of the sources as they were written; secrets are masked.
    """

    key: str
    value: object
    said: tuple[Said, ...]


def explain(loaded: Loaded, wanted: str) -> list[Explanation]:
    """Explain a key, all keys of a section, or those that match a pattern such as ``cameras.*.prompt``.

    Raises:
        UsageError: there is no such key; the message names the nearest.

    """
    effective = loaded.settings.model_dump(mode="json")
    pattern = tuple(wanted.split("."))
    explained = [
        Explanation(dotted(path), value, tuple(_said(loaded.layers, path)))
        for path, value in leaves(effective)
        if all(map(fnmatchcase, path, pattern)) and len(path) >= len(pattern)
    ]
    if not explained:
        raise UsageError(_unknown(pattern))
    return explained


def _said(layers: Sequence[Layer], path: Path) -> Iterator[Said]:
    secret = (kind := keys.at(path)) is not None and kind.secret
    for layer in reversed(layers):
        found = _found(layer, path)
        if found is not None:
            value, origin = found
            yield Said(origin, _MASK if secret and value is not None else value)
    for known, field in keys.fields():
        if len(known) == len(path) and all(map(fnmatchcase, path, known)):
            default = field.get_default(call_default_factory=True, validated_data={})
            if default is not PydanticUndefined:
                yield Said(Origin("default"), to_jsonable_python(default))


def _found(layer: Layer, path: Path) -> tuple[object, Origin] | None:
    """Return what a layer says of a key, or of a section around it that it takes away."""
    value: object = layer.tree
    for depth, name in enumerate(path):
        if not isinstance(value, dict):
            return value, _origin(layer, path[:depth])
        if name not in value:
            return None
        value = value[name]
    return value, _origin(layer, path)


def _origin(layer: Layer, path: Path) -> Origin:
    """Return where a key was said, or the first of those below it: a variable says nothing of the sections around."""
    return next(origin for known, origin in layer.origins.items() if known[: len(path)] == path)


def _unknown(pattern: Path) -> str:
    if any(set(level) & set("*?[") for level in pattern):
        return f"no key matches `{dotted(pattern)}`; `edge-slm config show` shows all"
    if keys.at(pattern) is not None:
        return f"nothing sets `{dotted(pattern)}` here; `edge-slm config show` shows all"
    near = keys.nearest(pattern)
    return f"there is no key `{dotted(pattern)}`; " + (
        f"did you mean `{near}`?" if near else "`edge-slm config show` shows all"
    )
