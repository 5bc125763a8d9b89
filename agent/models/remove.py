"""Taking a model out of the store."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from agent.models.catalogue import GgufInWheel, ModelError, catalogue
from agent.models.installing import CACHE, alone
from agent.models.store import variants

if TYPE_CHECKING:
    from pathlib import Path

    from agent.models.catalogue import Catalogue


def remove(name: str, store: Path, known: Catalogue | None = None) -> int:
    """Delete a model from the store, and what was downloaded for it; returns how many bytes that was.

    A box that runs it goes on: the kernel keeps the files until the last process has let go of them. It could not load
    the model again, though.

    Args:
        name: a model's name, for all its variants, or one variant's, as ``phi-3.5-mini@cuda``.
        store: the folder of installed models.
        known: the catalogue; by default this package's.

    Raises:
        ModelError: there is nothing of it, or it cannot be deleted.

    """
    known = catalogue() if known is None else known
    with alone(store, name, lambda _stage, _done, _total: None) as scratch:
        here = variants(name, store)
        downloads = [path for path in (store / CACHE).glob("*") if name in (path.name, path.name.partition("@")[0])]
        if name in known:
            sources = (variant.source for variant in known[name].variants.values())
            wheels = (store / CACHE / source.wheel for source in sources if isinstance(source, GgufInWheel))
            downloads += [wheel for wheel in wheels if wheel.exists()]
        if not here and not downloads:
            raise ModelError(f"there is no {name} in {store}: `edge-slm models list` shows what there is")
        # Renamed first: a folder that is half deleted would still look like a model.
        for number, path in enumerate([*(store / each for each in here), *downloads]):
            path.replace(scratch / str(number))
        freed = sum(file.stat().st_size for file in scratch.rglob("*") if file.is_file())
        shutil.rmtree(scratch)
    return freed
