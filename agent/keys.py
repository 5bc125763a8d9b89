"""The keys that a configuration may have, as `agent.settings` declares them: their shapes, nearest names, a table."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from agent.settings import Settings

Path: TypeAlias = tuple[str, ...]

# In a path, where the user chooses a name.
ANY = "*"


@dataclass(frozen=True, slots=True)
class Kind:
    """What may stand at a key.

    Attributes:
        shape: a section's ``keys`` with values, a ``list``, or a single ``value``.
        optional: whether null means something, too.
        secret: whether it must not be seen.
        section: the model that declares a section's keys; None where they are names of the user's choice.
        item: annotation of a list's items, or of what such a name stands for.

    """

    shape: Literal["keys", "list", "value"]
    optional: bool = False
    secret: bool = False
    section: type[BaseModel] | None = None
    item: object = None

    @classmethod
    def of(cls, annotation: object, *, optional: bool = False) -> "Kind":
        """Read an annotation."""
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return cls.of(arguments[0], optional=optional)
        if origin in (Union, UnionType):
            (inner,) = (each for each in arguments if each is not NoneType)
            return cls.of(inner, optional=True)
        if origin is tuple:
            return cls("list", optional, item=arguments[0])
        if origin is dict:
            return cls("keys", optional, item=arguments[1])
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return cls("keys", optional, section=annotation)
        return cls("value", optional, secret=annotation is SecretStr)

    def below(self, name: str) -> "Kind | None":
        """Return what may stand at the key ``name`` in here; None if there is no such key."""
        if self.shape == "keys" and self.section is None:
            return Kind.of(self.item)
        field = self.section.model_fields.get(name) if self.section else None
        return None if field is None else Kind.of(field.annotation)


def at(path: Path) -> Kind | None:
    """Return what may stand at a path of keys; None if there is no such key."""
    kind: Kind | None = Kind.of(Settings)
    for name in path:
        kind = kind.below(name) if kind else None
    return kind


def dotted(path: Path) -> str:
    """Write a path as people do."""
    return ".".join(path)


def fields(section: type[BaseModel] = Settings, above: Path = ()) -> Iterator[tuple[Path, FieldInfo]]:
    """Yield every key with a value of its own, in order; a section is one where it may be null, or has `ANY` in it."""
    for name, field in section.model_fields.items():
        kind = Kind.of(field.annotation)
        if kind.section is None or kind.optional:
            yield (*above, name), field
        if kind.section is not None:
            yield from fields(kind.section, (*above, name))
        elif kind.shape == "keys" and (named := Kind.of(kind.item).section):
            yield from fields(named, (*above, name, ANY))


def nearest(path: Path) -> str | None:
    """Return the known key that an unknown one probably means: its neighbour, or its namesake elsewhere."""
    above = at(path[:-1])
    neighbours = above.section.model_fields if above and above.section else ()
    if close := difflib.get_close_matches(path[-1], neighbours, 1):
        return dotted((*path[:-1], close[0]))
    namesakes = {known[-1]: known for known, _ in fields()}
    # Further away, fewer differences are forgiven.
    close = difflib.get_close_matches(path[-1], namesakes, 1, cutoff=0.8)
    return dotted(namesakes[close[0]]) if close else None


def table() -> str:
    """Render every key with its default and its meaning, for ``docs/configuration.md``."""
    rows = []
    for path, field in fields():
        section = Kind.of(field.annotation).section
        meaning = field.description or (section.__doc__ if section else "") or ""
        rows.append(f"| `{dotted(path)}` | {_default(field)} | {' '.join(meaning.split())} |")
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None or field.default is None:
        return ""
    if field.is_required():
        return "required"
    return f"`{list(field.default) if isinstance(field.default, tuple) else field.default}`"
