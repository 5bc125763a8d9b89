"""The folder of installed models: finding one in it, checking it, saying what it can do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from agent.durable import synced
from agent.models.catalogue import CPU, ModelError, catalogue, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.models.catalogue import Catalogue, Modality

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


def place(store: Path, name: str, provider: str) -> Path:
    """Say where in the store the variant of a model for an execution provider lies."""
    return store / (name if provider == CPU else f"{name}@{provider}")


def resolve(name_or_folder: str, store: Path, provider: str = CPU, known: Catalogue | None = None) -> Path:
    """Find the folder of a model given by catalogue name or by path.

    Of a catalogue name, the variant for the provider is taken if it is installed, else the one for CPU; it is only
    looked for in the store. Any other word is looked for first in the store, then as a path.

    Args:
        name_or_folder: what is configured.
        store: the folder of installed models.
        provider: the execution provider that is to run it.
        known: the catalogue; by default this package's.

    Raises:
        ModelError: it is not installed, or nothing by that name is known.

    """
    known = catalogue() if known is None else known
    if name_or_folder in known:
        for each in (provider, CPU):
            if _is_model(folder := place(store, name_or_folder, each)):
                return folder
        raise ModelError(
            f"model {name_or_folder} is not installed in {store}: run `edge-slm models pull {name_or_folder}`"
        )
    path = Path(name_or_folder).expanduser()
    is_word = path.name == name_or_folder
    for folder in (store / name_or_folder, path) if is_word else (path,):
        if _is_model(folder):
            return folder
    if path.is_dir():
        raise ModelError(f"folder {path} holds no {CONFIG}: give a folder that onnxruntime-genai's model builder wrote")
    if is_word:
        raise ModelError(unknown(name_or_folder, known))
    raise ModelError(f"there is no folder {path}: correct the path, or give a name from `edge-slm models list`")


def made_for(folder: Path) -> str:
    """Tell the execution provider that a model was made for; CPU where nothing says otherwise.

    The manifest comes first: of Phi-3.5-vision, Microsoft ships one genai_config.json with both variants.

    Raises:
        ModelError: its genai_config.json cannot be read.

    """
    if provider := origin(folder).get("provider"):
        return provider
    try:
        options = _read_json(folder / CONFIG)["model"]["decoder"]["session_options"]["provider_options"]
        return next((str(name) for each in options for name in each), CPU)
    except (KeyError, TypeError):
        return CPU


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def installed(store: Path) -> list[str]:
    """Names of the models that lie in the store, sorted."""
    # A dot folder is a pull in progress or its downloads.
    return sorted(config.parent.name for config in store.glob(f"[!.]*/{CONFIG}"))


def variants(name: str, store: Path) -> list[str]:
    """Names of a model's variants that lie in the store, sorted; a variant's own name, as NAME@cuda, means that one."""
    return [each for each in installed(store) if name in (each, each.partition("@")[0])]


def verify(name_or_folder: str, store: Path, known: Catalogue | None = None) -> list[str]:
    """Tell what is wrong with a model's files, in all its variants, a sentence each; empty if nothing is.

    A model installed by `pull` is compared with its manifest, every byte (0.2 s for 100 MB). A foreign folder has
    none, and is only asked whether the files that its genai_config.json names are there.

    Raises:
        ModelError: as `resolve`.

    """
    known = catalogue() if known is None else known
    here = [store / each for each in variants(name_or_folder, store)]
    return [
        problem if folder.name == name_or_folder or not here else f"{folder.name}: {problem}"
        for folder in here or [resolve(name_or_folder, store, known=known)]
        for problem in _problems(folder, ours=bool(here) and folder.name.partition("@")[0] in known)
    ]


def _problems(folder: Path, *, ours: bool) -> list[str]:
    if (folder / MANIFEST).is_file():
        return damage(folder)
    return [f"{MANIFEST} is missing"] if ours else missing_files(folder)


def damage(folder: Path) -> list[str]:
    """Tell what is wrong with the files of a model that has a manifest, a sentence each."""
    try:
        manifest = _read_json(folder / MANIFEST)
        files = {str(name): (int(file["bytes"]), str(file["sha256"])) for name, file in manifest["files"].items()}
    except (ModelError, KeyError, TypeError, ValueError, AttributeError):
        return [f"{MANIFEST} is damaged"]
    return [problem for name, (size, digest) in files.items() if (problem := _damage(folder / name, size, digest))]


def missing_files(folder: Path) -> list[str]:
    """Tell which files are missing that the model's configuration names, a sentence each."""
    named = dict.fromkeys(_file_names(read_config(folder)))
    return [f"{name}, which {CONFIG} names, is missing" for name in named if not (folder / name).is_file()]


def origin(folder: Path) -> dict[str, str]:
    """Read from its manifest where an installed model came from; empty if that does not tell."""
    try:
        return {str(key): str(value) for key, value in _read_json(folder / MANIFEST)["source"].items()}
    except (ModelError, KeyError, AttributeError):
        return {}


def content(folder: Path) -> str:
    """Tell one content of a model's folder from another by its files' names, sizes and times, in hexadecimal.

    Cheap: no file is read. One that was replaced by the same bytes is another: what was damaged is repaired so.

    Raises:
        ModelError: it cannot be looked at.

    """
    try:
        files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    except OSError as error:
        raise ModelError(f"{folder} cannot be read ({error.strerror}): check its owner") from error
    seen = [(str(path.relative_to(folder)), each.st_size, each.st_mtime_ns) for path, each in files]
    return hashlib.sha256(repr(seen).encode()).hexdigest()


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


def write_manifest(folder: Path, source: Mapping[str, str], digests: Mapping[str, str] | None = None) -> None:
    """Write manifest.json for the files that lie in `folder`; their SHA-256 are reckoned unless they are given."""
    content = {"v": 1, "source": dict(source), "files": inventory(folder, digests)}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def inventory(folder: Path, digests: Mapping[str, str] | None = None) -> dict[str, dict[str, int | str]]:
    """List a model's files but for the manifest, with their sizes and SHA-256 as the manifest has them.

    What begins with a dot is somebody's cache, or git's.
    """
    files = {
        str(file.relative_to(folder)): file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST and not is_hidden(file.relative_to(folder))
    }
    return {
        name: {"bytes": file.stat().st_size, "sha256": sha256(file) if digests is None else digests[name]}
        for name, file in files.items()
    }


def is_hidden(path: PurePath) -> bool:
    """Whether a relative path, or a folder on it, begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def sha256(path: Path) -> str:
    """Compute a file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_tree(folder: Path) -> None:
    """Make everything in a folder survive a power cut."""
    for path in (*folder.rglob("*"), folder):
        synced(path)


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


def _file_names(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """Every ``filename`` or ``…_filename`` at any depth; the sections differ from one model type to the next."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, str) and str(key).endswith("filename"):
            yield item
        else:
            yield from _file_names(item)


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model's genai_config.json.

    Raises:
        ModelError: it cannot be read, or is nobody's.

    """
    config = _read_json(folder / CONFIG)
    if not isinstance(config.get("model"), dict):
        raise ModelError(f"{folder / CONFIG} lacks a usable 'model': fetch or build the model again")
    return config


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
