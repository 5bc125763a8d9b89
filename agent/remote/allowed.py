"""Which settings can come from afar, and which values of them. Pure.

Whoever may publish to a box's ``config/desired`` can make it slow, or useless. They cannot make it say more than its
own files let it say, to anyone, nor read a file or load a library, nor put it out of their own reach.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from agent import keys
from agent.settings import Settings

_Rule: TypeAlias = Callable[[object], str | None]

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def _model(value: object) -> str | None:
    if value is None or _MODEL.match(str(value)):
        return None
    return "should be the name of a model, as `edge-slm models list` shows it on the box, and not a folder"


def _private(value: object) -> str | None:
    return None if value is True else "can only be tightened from afar: set it to true, or leave it out"


def _local(value: object) -> str | None:
    return None if value == "local_only" else "can only be tightened from afar: set it to local_only, or leave it out"


# By their keys, with what their values may be, beyond what the settings themselves say; a section's name stands for all
# keys in it.
_ALLOWED: Mapping[str, _Rule | None] = {
    "cameras.*.detail": None,
    "cameras.*.max_tokens": None,
    "cameras.*.min_interval_s": None,
    "cameras.*.placement": _local,
    "cameras.*.priority": None,
    "cameras.*.private": _private,
    "cameras.*.prompt": None,
    "cameras.*.skip_similar": None,
    "drain_s": None,
    "engine.leak_bytes": None,
    "engine.provider": None,
    "engine.slots": None,
    "engine.threads": None,
    "engine.vision_slots": None,
    "limits": None,
    "log.level": None,
    "metrics_s": None,
    "models.text": _model,
    "models.vision": _model,
    "placement": _local,
    "queue": None,
    "streaming": None,
}

# The others, with what the box's own files decide by them.
_RESERVED: Mapping[str, str] = {
    "cloud": "what may leave the box, and what that may cost,",
    "device": "which box this is",
    # Some of them are files, and QNN's `backend_path` is a library that is loaded.
    "engine.provider_options": "what a provider loads",
    "log.format": "how its log looks",
    "models.catalogue_file": "which files are read",
    "models.dir": "where its files are",
    "mqtt": "where the box connects to, and as whom,",
    # The jobs that a former member was given would still come to it, and wait for it at the broker.
    "pool": "whose work the box shares",
    "remote_config": "whether it can be set from afar",
    # A mark of 0 °C would send every job to the cloud.
    "saturation": "from when on jobs go elsewhere",
    "sources": "what the box listens to",
    "spool": "what is kept on its disk, and for how long,",
    "state_dir": "where its files are",
}


def objections(said: Iterable[str], settings: Settings) -> list[tuple[str, str]]:
    """Say what cannot be set from afar.

    Args:
        said: the dotted keys that are to be set.
        settings: what they come to, with all other layers.

    Returns:
        each key that is refused, with a sentence.

    """
    judged = ((key, _objection(tuple(key.split(".")), settings)) for key in said)
    return [(key, objection) for key, objection in judged if objection is not None]


def _objection(path: keys.Path, settings: Settings) -> str | None:
    for pattern, rule in _ALLOWED.items():
        steps = tuple(pattern.split("."))
        if _match(steps, path):
            objection = None if rule is None else rule(_at(path, settings))
            return None if objection is None else f"`{keys.dotted(path)}` {objection}"
        if _match(path, steps):
            return None  # a section without anything in it says nothing
    what = next((what for pattern, what in _RESERVED.items() if _match(tuple(pattern.split(".")), path)), "this")
    return f"`{keys.dotted(path)}` cannot be set from afar: {what} is decided by the box's own files"


def _match(pattern: keys.Path, path: keys.Path) -> bool:
    """Whether a path is the pattern's, or below it."""
    if len(path) < len(pattern):
        return False
    return all(keys.ANY in (step, own) or step == own for step, own in zip(pattern, path, strict=False))


def _at(path: keys.Path, settings: Settings) -> object:
    value: object = settings
    for name in path:
        value = value[name] if isinstance(value, Mapping) else getattr(value, name)
    return value
