"""The folder of installed models: finding one in it, checking it, saying what it can do."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.models.catalogue import CATALOGUE, Modality, ModelError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = "genai_config.json"
MANIFEST = "manifest.json"
"""Written last into a model this project installed: each file's size and SHA-256, and where it came from."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a model folder's genai_config.json says, without loading the model."""

    type: str
    """The architecture, as onnxruntime-genai names it: llama, phi3, phi3v…"""
    modalities: tuple[Modality, ...]
    context: int
    """Tokens, prompt and answer together."""
    bytes: int
    """Of all files in the folder."""


def resolve(name_or_folder: str, store: Path) -> Path:
    """Find the folder of a model given by catalogue name or by path.

    A catalogue name is only looked for in the store; any other word first in the store, then as a path.

    Raises:
        ModelError: it is not installed, or nothing by that name is known.

    """
    if name_or_folder in CATALOGUE:
        folder = store / name_or_folder
        if (folder / CONFIG).is_file():
            return folder
        raise ModelError(
            f"model {name_or_folder} is not installed in {store}: run `edge-slm models pull {name_or_folder}`"
        )
    path = Path(name_or_folder).expanduser()
    is_word = path.name == name_or_folder
    for folder in (store / name_or_folder, path) if is_word else (path,):
        if (folder / CONFIG).is_file():
            return folder
    if path.is_dir():
        raise ModelError(f"folder {path} holds no {CONFIG}: give a folder that onnxruntime-genai's model builder wrote")
    if is_word:
        raise ModelError(unknown(name_or_folder))
    raise ModelError(f"there is no folder {path}: correct the path, or give a name from `edge-slm models list`")


def installed(store: Path) -> list[str]:
    """Names of the models that lie in the store, sorted."""
    # A dot folder is a pull in progress or its downloads.
    return sorted(config.parent.name for config in store.glob(f"[!.]*/{CONFIG}"))


def verify(name_or_folder: str, store: Path) -> list[str]:
    """Tell what is wrong with a model's files, a sentence each; empty if nothing is.

    A model installed by `pull` is compared with its manifest, every byte (0.2 s for 100 MB). A foreign folder has
    none, and is only asked whether the files that its genai_config.json names are there.

    Raises:
        ModelError: as `resolve`.

    """
    folder = resolve(name_or_folder, store)
    if not (folder / MANIFEST).is_file():
        if name_or_folder in CATALOGUE:
            return [f"{MANIFEST} is missing"]
        return [
            f"{name}, which {CONFIG} names, is missing" for name in _named_files(folder) if not _is_there(folder, name)
        ]
    try:
        manifest = _read_json(folder / MANIFEST)
        files = {str(name): (int(file["bytes"]), str(file["sha256"])) for name, file in manifest["files"].items()}
    except (ModelError, KeyError, TypeError, ValueError, AttributeError):
        return [f"{MANIFEST} is damaged"]
    return [problem for name, (size, digest) in files.items() if (problem := _damage(folder / name, size, digest))]


def describe(folder: Path) -> Description:
    """Tell what the model is, from its genai_config.json.

    Raises:
        ModelError: the file cannot be read or lacks what every model has.

    """
    config = _read_json(folder / CONFIG)
    try:
        model = config["model"]
        return Description(
            type=str(model["type"]),
            modalities=("text", "image") if "vision" in model else ("text",),
            context=int(model["context_length"]),
            bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG} lacks a usable {error}: fetch or build the model again") from error


def write_manifest(folder: Path, source: dict[str, str]) -> None:
    """Write manifest.json for the files that lie in `folder`."""
    content = {"v": 1, "source": source, "files": inventory(folder)}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def inventory(folder: Path) -> dict[str, dict[str, int | str]]:
    """List a model's files but for the manifest, with their sizes and SHA-256 as the manifest has them."""
    return {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST
    }


def sha256(path: Path) -> str:
    """Compute a file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_tree(folder: Path) -> None:
    """Make everything in a folder survive a power cut."""
    for path in (*folder.rglob("*"), folder):
        sync_entry(path)


def sync_entry(path: Path) -> None:
    """Make one file's bytes, or one folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damage(path: Path, size: int, digest: str) -> str | None:
    try:
        if path.stat().st_size != size:
            return f"{path.name} has {path.stat().st_size} bytes where {size} were installed"
        if sha256(path) != digest:
            return f"{path.name} has changed since it was installed"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return None


def _named_files(folder: Path) -> list[str]:
    return list(dict.fromkeys(_file_names(_read_json(folder / CONFIG))))


def _file_names(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """Every ``filename`` or ``…_filename`` at any depth; the sections differ from one model type to the next."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, str) and str(key).endswith("filename"):
            yield item
        else:
            yield from _file_names(item)


def _is_there(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}): fetch or build the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object: fetch or build the model again")
    return content
