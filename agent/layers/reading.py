"""One layer of a configuration: what a file, a text, an environment variable or the command line says, and where.

A scalar is taken as it is written, and its key says how to read it. So YAML's own guesses play no part:
``id: no`` and ``id: 007`` are names, ``protocol: 5`` is text, and ``port: "1883"`` is a number.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml
from yaml.error import Mark
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from agent import keys
from agent.errors import UsageError
from agent.keys import Kind, Path, dotted
from agent.settings import Settings

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

Tree: TypeAlias = dict[str, Any]

_PREFIX = Settings.model_config["env_prefix"]
_LEVEL = Settings.model_config["env_nested_delimiter"] or "__"
# The deepest key, cloud.budget.box.day.requests, has five. libyaml takes 12 s to say that 65,536 brackets are wrong,
# and PyYAML, which nests its calls as they are nested, does not survive as many.
_DEEPEST = 32
# To look for the name that was meant takes a millisecond: 64 KiB of unknown keys took 6 s. Whoever has made more
# mistakes than these mends them first.
MOST_PROBLEMS = 20
# Of what is told of a text that is wrong. The longest key that there is, with a camera's name of 64 characters, has 85.
_MOST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Origin:
    """What set a key: a file and its line, an environment variable, ``command line`` or ``default``."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, for a person and for a program.

    Attributes:
        message: what is wrong and what would be right, without the place.
        origin: the place; None where nothing was said that should have been.
        key: the dotted key, where it is about one.

    """

    message: str
    origin: Origin | None = None
    key: str | None = None

    def __str__(self) -> str:
        return self.message if self.origin is None else f"{self.origin}: {self.message}"


class ConfigError(UsageError):
    """The configuration cannot be used.

    Attributes:
        problems: everything that is wrong with it.

    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source says.

    Attributes:
        tree: its keys, nested, with scalars as text; what is wrong is left out.
        origins: where each of them was said, sections and items of lists as well.
        problems: what is wrong with it.

    """

    tree: Tree = field(default_factory=dict)
    origins: Mapping[Path, Origin] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def read_file(file: pathlib.Path) -> Layer:
    """Read a YAML file."""
    try:
        return read_text(str(file), file.read_bytes())
    except OSError as error:
        return unreadable(file, error)


def unreadable(path: pathlib.Path, error: OSError) -> Layer:
    """Return what a file or a folder says that cannot be read."""
    return Layer(problems=(Problem(f"cannot be read ({error.strerror}); check its name and owner", Origin(str(path))),))


def read_text(name: str, text: str | bytes, *, sent: bool = False) -> Layer:
    """Read YAML or JSON of which people know under this name; ``sent`` if it came from afar."""
    reader = _Reader(name, lined=True, sent=sent)
    with reader.noting_problems():
        node = reader.composed(text)
        if isinstance(node, MappingNode):
            return reader.layer(reader.mapping(node, ()))
        if not _is_null(node):
            raise _ProblemError(
                "should be keys with values, as in `mqtt: {host: broker.lan}`", reader.at(node.start_mark)
            )
    return reader.layer({})


def read_environment(environ: Mapping[str, str]) -> Iterator[Layer]:
    """Read each variable that is ours."""
    for name, text in sorted(environ.items()):
        if name.upper().startswith(_PREFIX):
            yield _read_variable(name, text)


def _read_variable(name: str, text: str) -> Layer:
    reader = _Reader(name, private=True)
    path = tuple(name.upper().removeprefix(_PREFIX).lower().split(_LEVEL))
    with reader.noting_problems():
        kind = _known(path, reader.at())
        # A password may look like any YAML, so only what has parts is read as such.
        node = ScalarNode("", text, style='"') if kind.shape == "value" else reader.composed(text)
        return reader.layer(_nested(path, reader.value(node, kind, path, reader.at())))
    return reader.layer({})


def read_override(override: str) -> Layer:
    """Read a ``dotted.key=value`` of the command line, whose value is YAML."""
    reader = _Reader("command line")
    key, equals, text = override.partition("=")
    path = tuple(key.split("."))
    with reader.noting_problems():
        if not equals:
            raise _ProblemError(f"`{override}` should have the form key=value", reader.at())
        kind = _known(path, reader.at())
        return reader.layer(_nested(path, reader.value(reader.composed(text), kind, path, reader.at())))
    return reader.layer({})


class _ProblemError(Exception):
    """One problem, on its way to the list of all."""

    def __init__(self, message: str, origin: Origin, path: Path = ()) -> None:
        super().__init__(message)
        self.problem = Problem(message, origin, name_of(path) or None)


class _Reader:
    """Turns one source's nodes into its layer.

    ``private`` if it may hold secrets, ``lined`` if its lines matter, ``sent`` if it came from afar.
    """

    def __init__(self, name: str, *, lined: bool = False, private: bool = False, sent: bool = False) -> None:
        self._name, self._lined, self._private, self._sent = name, lined, private, sent
        self._origins: dict[Path, Origin] = {}
        self._problems: list[Problem] = []

    def layer(self, tree: Tree) -> Layer:
        return Layer(tree, self._origins, tuple(self._problems))

    def at(self, mark: Mark | None = None) -> Origin:
        return Origin(self._name, mark.line + 1 if self._lined and mark is not None else None)

    @contextlib.contextmanager
    def noting_problems(self) -> Iterator[None]:
        try:
            yield
        except _ProblemError as error:
            self._problems.append(error.problem)

    def composed(self, text: str | bytes) -> Node:
        """Parse YAML as far as its nodes, which know their lines."""
        try:
            self._refuse_bombs(text)
            # An empty document has no node, and means null.
            node: Node = yaml.compose(text, Loader=_Loader) or ScalarNode("tag:yaml.org,2002:null", "")
        except (yaml.YAMLError, UnicodeError) as error:  # half an emoji, in JSON or in a variable, is no text
            if (plain := _plain_json(text)) is not None:
                return self.composed(plain)
            mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None)
            raise _ProblemError(f"not YAML: {shown(what or ' '.join(str(error).split()))}", self.at(mark)) from error
        return node

    def _refuse_bombs(self, text: str | bytes) -> None:
        depth = 0
        event: Any  # its marks are libyaml's, or PyYAML's own
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            alias = isinstance(event, yaml.AliasEvent)
            if alias and self._sent:  # 60 KB of them stand for 45 MB
                raise _ProblemError(
                    "an alias such as `*name` is not taken from afar: write it out", self.at(event.start_mark)
                )
            if depth > _DEEPEST:
                raise _ProblemError("is nested deeper than any key is", self.at(event.start_mark))

    def value(self, node: Node, kind: Kind, path: Path, origin: Origin) -> object:
        """Read a node as what may stand at its key; keys that may not are left out, and told of."""
        self._origins[path] = origin
        if _is_null(node):
            # A section of which every key is commented out says nothing.
            return {} if kind.shape == "keys" and not kind.optional else None
        match kind.shape, node:
            case "keys", MappingNode():
                return self.mapping(node, path)
            case "list", SequenceNode():
                items, item = enumerate(node.value), Kind.of(kind.item)
                return [self.value(each, item, (*path, str(n)), self.at(each.start_mark)) for n, each in items]
            case "value", ScalarNode():
                if kind.secret and not self._private:
                    raise _ProblemError(_no_place_for(path), origin, path)
                return node.value
        shape = {"keys": "keys with values", "list": "a list", "value": "a single value"}[kind.shape]
        raise _ProblemError(f"`{name_of(path)}` should be {shape}", origin, path)

    def mapping(self, node: MappingNode, above: Path) -> Tree:
        tree: Tree = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            if len(self._problems) >= MOST_PROBLEMS:
                break
            origin = self.at(key.start_mark)
            name = key.value if isinstance(key, ScalarNode) else "?"
            path = (*above, name)
            with self.noting_problems():
                if name in lines:
                    raise _ProblemError(f"`{name_of(path)}` is already set in line {lines[name]}", origin, path)
                lines[name] = key.start_mark.line + 1
                tree[name] = self.value(value, _known(path, origin), path, origin)
        return tree


def _plain_json(text: str | bytes) -> str | None:
    r"""Return JSON as YAML reads it, too; None if it is no JSON.

    The two differ in characters beyond the first 65,536, such as emojis: many a JSON writer makes ``\ud83d\ude00`` of
    one, which YAML takes for two characters that cannot be.
    """
    try:
        plain = json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return None if plain == text else plain


def name_of(path: Path) -> str:
    """Return a key as it is told of."""
    return shown(dotted(path))


def shown(text: str) -> str:
    """Return as much of a text as a sentence about it has room for: some are 64 KiB, and a sentence may be sent on."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _is_null(node: Node) -> bool:
    """Whether a node is null, as written without quotes."""
    return isinstance(node, ScalarNode) and node.tag.endswith(":null") and not node.style


def _known(path: Path, origin: Origin) -> Kind:
    kind = keys.at(path)
    if kind is None:
        near = keys.nearest(path)
        hint = f"; did you mean `{shown(near)}`?" if near else ""
        raise _ProblemError(f"unknown key `{name_of(path)}`{hint}", origin, path)
    return kind


def _no_place_for(secret: Path) -> str:
    key, variable = dotted(secret), _PREFIX + _LEVEL.join(secret).upper()
    return f"`{key}` is a secret, which too many can read here; set `{key}_file`, or {variable}"


def _nested(path: Path, value: object) -> Tree:
    tree: Tree = {path[-1]: value}
    for name in reversed(path[:-1]):
        tree = {name: tree}
    return tree
