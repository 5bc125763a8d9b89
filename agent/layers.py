"""The layers of a box's configuration, from its files to its command line, read into `Settings`.

Later over earlier: the defaults in `agent.settings` < each file in order < the environment < the command line.
Mappings merge key by key; everything else replaces what was there.

A scalar is taken as it is written, and its key says how to read it. So YAML's own guesses play no part:
``id: no`` and ``id: 007`` are names, ``protocol: 5`` is text, and ``port: "1883"`` is a number.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
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

_PREFIX = Settings.model_config["env_prefix"]
_LEVEL = Settings.model_config["env_nested_delimiter"] or "__"
_Tree: TypeAlias = dict[str, Any]


class ConfigError(UsageError):
    """The configuration cannot be used.

    Attributes:
        problems: everything that is wrong with it, a sentence each.

    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Origin:
    """What set a key: a file and its line, an environment variable, ``command line`` or ``default``."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class _Source:
    """Something that sets keys; ``lined`` if its lines are worth naming, ``private`` if it may hold secrets."""

    name: str
    lined: bool = False
    private: bool = False

    def at(self, mark: Mark | None = None) -> Origin:
        return Origin(self.name, mark.line + 1 if self.lined and mark is not None else None)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The effective settings, and what set each of their dotted keys."""

    settings: Settings
    origin: Mapping[str, Origin]


def load(
    files: Sequence[pathlib.Path], overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Loaded:
    """Read all layers.

    Args:
        files: YAML files, later over earlier.
        overrides: ``dotted.key=value`` from the command line, the value in YAML.
        environ: the environment; by default this process's own.

    Raises:
        ConfigError: with every problem that was found.

    """
    layers = _Layers()
    for file in files:
        layers.add_file(file)
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if name.upper().startswith(_PREFIX):
            layers.add_variable(name, text)
    for override in overrides:
        layers.add_override(override)
    return layers.loaded()


def show(loaded: Loaded) -> str:
    """Render the effective configuration as YAML, with its secrets masked."""
    return yaml.safe_dump(loaded.settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class _ProblemError(Exception):
    """One sentence, on its way to the list of all problems."""


class _Layers:
    """What was said so far, by whom, and what was wrong with it."""

    def __init__(self) -> None:
        self._tree: _Tree = {}
        self._origins: dict[Path, Origin] = {}
        self._problems: list[str] = []

    def add_file(self, file: pathlib.Path) -> None:
        source = _Source(str(file), lined=True)
        with self._noting_problems():
            try:
                node = _composed(file.read_bytes(), source)
            except OSError as error:
                raise _ProblemError(f"{file}: cannot be read ({error.strerror}); check its name and owner") from error
            if isinstance(node, MappingNode):
                _merge(self._tree, self._mapping(node, (), source))
            elif not _is_null(node):
                raise _ProblemError(
                    f"{source.at(node.start_mark)}: should be keys with values, as in `mqtt: {{host: broker.lan}}`"
                )

    def add_variable(self, name: str, text: str) -> None:
        source = _Source(name, private=True)
        path = tuple(name.upper().removeprefix(_PREFIX).lower().split(_LEVEL))
        with self._noting_problems():
            kind = _known(path, source.at())
            # A password may look like any YAML, so only what has parts is read as such.
            node = ScalarNode("", text, style='"') if kind.shape == "value" else _composed(text, source)
            self._say(path, self._value(node, kind, path, source.at(), source))

    def add_override(self, override: str) -> None:
        source = _Source("command line")
        key, equals, text = override.partition("=")
        path = tuple(key.split("."))
        with self._noting_problems():
            if not equals:
                raise _ProblemError(f"{source.name}: `{override}` should have the form key=value")
            kind = _known(path, source.at())
            self._say(path, self._value(_composed(text, source), kind, path, source.at(), source))

    def loaded(self) -> Loaded:
        try:
            settings = Settings(**self._tree)
        except ValidationError as invalid:
            self._problems += [self._complaint(error) for error in invalid.errors(include_url=False)]
        if self._problems:
            raise ConfigError(self._problems)
        origin = {dotted(path): Origin("default") for path, _ in keys.fields() if keys.ANY not in path}
        origin |= {dotted(path): self._origins[path] for path in _leaves(self._tree)}
        return Loaded(settings, MappingProxyType(origin))

    @contextlib.contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
        except _ProblemError as problem:
            self._problems.append(str(problem))

    def _say(self, path: Path, value: object) -> None:
        tree: _Tree = {path[-1]: value}
        for name in reversed(path[:-1]):
            tree = {name: tree}
        _merge(self._tree, tree)

    def _value(self, node: Node, kind: Kind, path: Path, origin: Origin, source: _Source) -> object:
        """Read a node as what may stand at its key; keys that may not are left out, and told of."""
        self._origins[path] = origin
        if _is_null(node):
            # A section of which every key is commented out says nothing.
            return {} if kind.shape == "keys" and not kind.optional else None
        match kind.shape, node:
            case "keys", MappingNode():
                return self._mapping(node, path, source)
            case "list", SequenceNode():
                items, item = enumerate(node.value), Kind.of(kind.item)
                return [
                    self._value(each, item, (*path, str(n)), source.at(each.start_mark), source) for n, each in items
                ]
            case "value", ScalarNode():
                if kind.secret and not source.private:
                    raise _ProblemError(f"{origin}: {_no_place_for(path)}")
                return node.value
        shape = {"keys": "keys with values", "list": "a list", "value": "a single value"}[kind.shape]
        raise _ProblemError(f"{origin}: `{dotted(path)}` should be {shape}")

    def _mapping(self, node: MappingNode, above: Path, source: _Source) -> _Tree:
        tree: _Tree = {}
        lines: dict[str, int | None] = {}
        for key, value in node.value:
            origin = source.at(key.start_mark)
            name = key.value if isinstance(key, ScalarNode) else "?"
            path = (*above, name)
            with self._noting_problems():
                if name in lines:
                    raise _ProblemError(f"{origin}: `{dotted(path)}` is already set in line {lines[name]}")
                lines[name] = key.start_mark.line + 1
                tree[name] = self._value(value, _known(path, origin), path, origin, source)
        return tree

    def _complaint(self, error: ErrorDetails) -> str:
        """Say what is wrong with a value, who set it, and what was expected."""
        # Where the name of a user's choice is wrong, pydantic adds a step that says so.
        path = tuple(str(step) for step in error["loc"] if step != "[key]")
        said = [path[:n] for n in range(len(path), 0, -1) if path[:n] in self._origins]
        where = f"{self._origins[said[0]]}: " if said else ""
        kind, value = keys.at(path), error["input"]
        given = f", not `{value}`" if isinstance(value, str) and not (kind and kind.secret) else ""
        # pydantic's "Input should be a valid integer, unable to parse string as an integer" and the like.
        expected = re.sub(r"^(Value error,|Value|Input|String) |, unable to parse.*", "", error["msg"])
        return f"{where}`{dotted(path)}`{'' if expected.startswith('should') else ':'} {expected}{given}"


def _composed(text: str | bytes, source: _Source) -> Node:
    """Parse YAML as far as its nodes, which know their lines."""
    try:
        # An empty document has no node, and means null.
        node: Node = yaml.compose(text, Loader=_Loader) or ScalarNode("tag:yaml.org,2002:null", "")
    except yaml.MarkedYAMLError as error:
        raise _ProblemError(f"{source.at(error.problem_mark)}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise _ProblemError(f"{source.name}: not YAML: {' '.join(str(error).split())}") from error
    return node


def _is_null(node: Node) -> bool:
    """Whether a node is null, as written without quotes."""
    return isinstance(node, ScalarNode) and node.tag.endswith(":null") and not node.style


def _known(path: Path, origin: Origin) -> Kind:
    kind = keys.at(path)
    if kind is None:
        near = keys.nearest(path)
        hint = f"; did you mean `{near}`?" if near else ""
        raise _ProblemError(f"{origin}: unknown key `{dotted(path)}`{hint}")
    return kind


def _no_place_for(secret: Path) -> str:
    key, variable = dotted(secret), _PREFIX + _LEVEL.join(secret).upper()
    return f"`{key}` is a secret, which too many can read here; set `{key}_file`, or {variable}"


def _merge(base: _Tree, over: _Tree) -> None:
    for name, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            _merge(base[name], value)
        else:
            base[name] = value


def _leaves(tree: _Tree, above: Path = ()) -> Iterator[Path]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name)
