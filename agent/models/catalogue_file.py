"""Reading a catalogue's YAML: what is wrong with it is told with its line."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from yaml.nodes import MappingNode, Node, ScalarNode

from agent.models.catalogue import CPU, Entry, GgufInWheel, HubFolder, LocalFolder, Modality, ModelError, Variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic_core import ErrorDetails

_Keys: TypeAlias = tuple[str, ...]
_Lines: TypeAlias = dict[_Keys, int]
_Bytes = Annotated[int, Field(gt=0)]
# It becomes the name of a folder, to which @ and the provider are added.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Provider = Literal["cpu", "cuda", "NvTensorRtRtx", "QNN", "VitisAI", "RyzenAI", "OpenVINO", "WebGPU"]


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or any(part.startswith(".") for part in path.parts):
        raise ValueError("should be a relative path without a leading dot")
    return name


def _hexadecimal(digits: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch(f"[0-9a-f]{{{digits}}}", text):
            raise ValueError(f"should be {digits} hexadecimal digits")
        return text

    return check


_Inside = Annotated[str, AfterValidator(_inside)]
_Digest = Annotated[str, AfterValidator(_hexadecimal(64))]
# A branch would be another model tomorrow, and the short form of a commit is not found by the hub.
_Commit = Annotated[str, AfterValidator(_hexadecimal(40))]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Hub(_Part):
    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: _Commit
    folder: _Inside
    files: dict[_Inside, _Digest | None] = Field(default_factory=dict)


class _Wheel(_Part):
    distribution: str
    version: str
    wheel: str
    sha256: _Digest
    wheel_bytes: _Bytes
    member: str
    member_bytes: _Bytes


class _Variant(_Part):
    bytes: _Bytes
    memory: _Bytes
    hub: _Hub | None = None
    wheel: _Wheel | None = None
    folder: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> _Variant:
        if sum(source is not None for source in (self.hub, self.wheel, self.folder)) != 1:
            raise ValueError("should have one of hub, wheel and folder, from which it comes")
        return self

    def made(self, beside: Path) -> Variant:
        source: HubFolder | GgufInWheel | LocalFolder
        if self.hub is not None:
            source = HubFolder(**self.hub.model_dump())
        elif self.wheel is not None:
            source = GgufInWheel(**self.wheel.model_dump())
        else:
            source = LocalFolder(beside / self.folder)  # type: ignore[operator]  # one of them is there
        return Variant(self.bytes, self.memory, source)


class _Entry(_Part):
    title: str
    licence: str
    modalities: Annotated[tuple[Modality, ...], Field(min_length=1)]
    context: _Bytes
    variants: Annotated[dict[_Provider, _Variant], Field(min_length=1)]
    test: bool = False


_FILE = TypeAdapter(dict[_Name, _Entry])


def read(file: Path) -> dict[str, Entry]:
    """Read a catalogue.

    Raises:
        ModelError: with every problem that was found, a line each.

    """
    lines: _Lines = {}
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        tree = _plain(node, (), lines, file) if node else {}
        entries = _FILE.validate_python(tree)
    except OSError as error:
        raise ModelError(f"the catalogue {file} cannot be read ({error.strerror}): check its name and owner") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"the catalogue {file} is not YAML ({' '.join(str(error).split())}): correct it") from error
    except RecursionError as error:
        raise ModelError(f"the catalogue {file} has an alias (*) inside of what it stands for: correct it") from error
    except ValidationError as invalid:
        problems = [_complaint(file, lines, error) for error in invalid.errors(include_url=False)]
        raise ModelError("\n".join(problems)) from invalid
    return {
        name: Entry(
            name,
            entry.title,
            entry.licence,
            entry.modalities,
            entry.context,
            {provider: variant.made(file.parent) for provider, variant in _cpu_first(entry.variants).items()},
            entry.test,
        )
        for name, entry in entries.items()
    }


def _cpu_first(variants: dict[_Provider, _Variant]) -> dict[_Provider, _Variant]:
    return dict(sorted(variants.items(), key=lambda item: item[0] != CPU))


def _plain(node: Node, above: _Keys, lines: _Lines, file: Path) -> Any:  # noqa: ANN401  any YAML
    """Make mappings, lists and texts of a node, and note each key's line. Texts, as YAML's guesses play no part."""
    lines.setdefault(above, node.start_mark.line + 1)
    if isinstance(node, MappingNode):
        tree = {}
        for key, value in node.value:
            name = str(key.value)
            lines[*above, name] = key.start_mark.line + 1
            if name in tree:
                raise ModelError(f"{file}:{key.start_mark.line + 1}: `{'.'.join((*above, name))}` is there twice")
            tree[name] = _plain(value, (*above, name), lines, file)
        return tree
    if isinstance(node, ScalarNode):
        return None if node.tag.endswith(":null") and not node.style else node.value
    return [_plain(item, (*above, str(index)), lines, file) for index, item in enumerate(node.value)]


def _complaint(file: Path, lines: _Lines, error: ErrorDetails) -> str:
    # Where a name is wrong, pydantic adds a step that says so.
    keys = tuple(str(step) for step in error["loc"] if step != "[key]")
    line = next(lines[keys[:n]] for n in range(len(keys), -1, -1) if keys[:n] in lines)
    words = {"extra_forbidden": "is no key here", "missing": "is missing"}
    said = words.get(error["type"]) or re.sub(
        r"^(Value error,|Value|Input|String) |, unable to parse.*", "", error["msg"]
    )
    return f"{file}:{line}: `{'.'.join(keys)}` {said}"
