"""The configured models: whether they are here and whole enough, fit, and what would run them."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path

from agent.doctor.finding import Finding
from agent.errors import UserError
from agent.hardware.machine import Machine
from agent.models.store import MANIFEST, missing_files
from agent.settings import Settings
from agent.stations import local_engines


def models(settings: Settings, machine: Machine, absent: Collection[str]) -> Iterator[Finding]:
    """Yield each model with the provider that will run it, by the box's own decision at its start.

    Args:
        settings: the box's.
        machine: what could run them.
        absent: providers of which is known that they are not really here.

    """
    try:
        engines = local_engines(settings, machine)
        damaged = [sentence for engine in engines.values() for sentence in _damage(engine.spec.rungs[0].folder)]
    except UserError as error:
        yield Finding("models", "wrong", str(error), stops=True)
        return
    except OSError as error:
        why = f"{error.filename} cannot be read ({error.strerror}): run it as the user that the box runs as"
        yield Finding("models", "wrong", why, stops=True)
        return
    for sentence in dict.fromkeys(damaged):
        yield Finding("models", "wrong", sentence, stops=True)
    for station, engine in engines.items():
        spec = engine.spec
        there = [rung for rung in spec.rungs if rung.provider not in absent]
        if not there:
            alone = " and ".join(rung.provider for rung in spec.rungs)
            other = "" if alone == "cpu" else ", or name a model that the processor runs (`edge-slm models list`)"
            other = f"; {spec.left_out}" if spec.left_out else other
            why = f"{spec.name} runs on {alone} alone, which cannot be used: mend what is said above{other}"
            yield Finding(f"{station} model", "wrong", why, stops=True, facts={"model": spec.name, "provider": None})
            continue
        first, others = there[0], [rung.provider for rung in there[1:]]
        gone = [f"{rung.provider} cannot be used" for rung in spec.rungs if rung.provider in absent]
        more = [*gone, *([spec.left_out] if spec.left_out else []), *(f"if it fails, {each}" for each in others)]
        told = "; ".join([f"{spec.name} runs on {first.provider}: {first.why}", *more])
        facts = {"model": spec.name, "provider": first.provider}
        yield Finding(f"{station} model", "well", told, facts=facts)


def _damage(folder: Path) -> Iterator[str]:
    """Yield what is wrong with a model's files by names and sizes; to read them through takes minutes from a card."""
    for missing in missing_files(folder):
        yield f"{folder.name}: {missing}: install the model again"
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        sizes = {folder / str(name): int(file["bytes"]) for name, file in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # somebody's own folder has none
    for file, size in sizes.items():
        if file.is_file() and file.stat().st_size != size:
            yield f"{folder.name}: {file.name} has not its {size:,} bytes: install the model again"
