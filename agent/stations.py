"""The stations of a box, as they are configured: an engine each, and the line for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.admission import Camera, Queue, Saturation, Starts
from agent.contract.jobs import Job
from agent.credentials import secret
from agent.engines.base import Engine, Remote
from agent.engines.local import LocalEngine
from agent.engines.spec import Rung, Spec
from agent.errors import UserError
from agent.forecast import Estimator
from agent.hardware.choice import Choice, choose
from agent.hardware.machine import Machine
from agent.hardware.packages import remedy
from agent.line import CloudLine, Line
from agent.models import Catalogue, ModelError, catalogue, content, describe, footprint, made_for, preflight, resolve
from agent.placement import Station
from agent.settings import Settings

if TYPE_CHECKING:
    from agent.engines.cloud.books import Books

_CPU = "cpu"
_ON_CARDS = ("cuda", "NvTensorRtRtx")


def local_engines(
    settings: Settings,
    machine: Machine,
    *,
    available: int | None = None,
    running: Mapping[Station, LocalEngine] = MappingProxyType({}),
) -> dict[Station, LocalEngine]:
    """Build an engine for each configured model; nothing is started.

    Args:
        settings: the box's.
        machine: what could run them.
        available: the memory that is free for them, in bytes; None where that tells nothing, as while others run.
        running: what runs here; an engine that would be the same is kept.

    Raises:
        ModelError: a model is not there, cannot do what it is configured for, or does not fit into the memory.
        UserError: there is no engine to run it.

    """
    if find_spec("onnxruntime_genai") is None:
        raise UserError(
            f"no inference engine is installed: {remedy('cpu')}; for this box's accelerator, take the extra that "
            "`edge-slm doctor` names"
        )
    known = catalogue(settings.models.catalogue_file)
    specs = _specs(settings, machine, known)
    kept = {station: engine for station, engine in running.items() if engine.spec == specs.get(station)}
    if len(kept) < len(specs):
        _check_memory(specs, machine, available, known)
    return {station: kept.get(station) or LocalEngine(spec) for station, spec in specs.items()}


def _specs(settings: Settings, machine: Machine, known: Catalogue) -> dict[Station, Spec]:
    """Return what is configured; see `local_engines`."""
    choices = choose(settings.engine.provider, settings.engine.provider_options, machine)
    wanted: dict[Station, tuple[str | None, int]] = {
        "text": (settings.models.text, settings.engine.slots),
        "vision": (settings.models.vision, settings.engine.vision_slots),
    }
    specs: dict[Station, Spec] = {}
    for station, (name, slots) in wanted.items():
        if name is not None:
            rungs, left_out = _rungs(name, settings, known, choices, machine)
            spec = Spec(
                # Of a folder only its name is told: where it lies is nobody's business on the wire.
                name=name if name in known else rungs[0].folder.name,
                rungs=rungs,
                slots=slots,
                # Where a part of the cores is slow, each step would wait for them.
                threads=settings.engine.threads or machine.processor.fast_cores,
                default_max_tokens=settings.limits.max_tokens,
                leak_bytes=settings.engine.leak_bytes,
                left_out=left_out,
            )
            specs[station] = _falling_softly(spec, station, machine, known)
    folders = {station: spec.rungs[0].folder for station, spec in specs.items()}
    if "vision" in folders and "image" not in describe(folders["vision"]).modalities:
        name = settings.models.vision
        raise ModelError(f"models.vision: {name} reads text alone; name a model that takes pictures, or set it to null")
    if len(folders) > len({*folders.values()}):
        raise ModelError("models.text and models.vision are the same: set models.text to null, and it serves both")
    return specs


def _rungs(
    name: str, settings: Settings, known: Catalogue, choices: Sequence[Choice], machine: Machine
) -> tuple[tuple[Rung, ...], str | None]:
    """Return the ways to run a model, and why a better one is not among them, or the last, if there could be one."""
    rungs: list[Rung] = []
    left_out = None
    cards = any(each.kind == "nvidia-gpu" for each in machine.accelerators)
    for choice in choices:
        try:
            folder = resolve(name, settings.models_dir, choice.provider, known)
        except ModelError:
            if choice is choices[-1]:
                if not rungs:
                    raise
                left_out = _nothing_behind(left_out, rungs, f"run `edge-slm models pull {name}`, and restart the box")
            continue
        made = made_for(folder)
        takes = {choice.provider.lower()} if choice.own_model else {choice.provider.lower(), _CPU}
        if choice.provider == _CPU or made.lower() in takes:
            if not rungs and made.lower() not in takes:
                left_out = _made_for_another(name, made, known)
            options = tuple(sorted(choice.options.items()))
            on_card = cards and choice.provider in _ON_CARDS
            rungs.append(Rung(choice.provider, folder, choice.why, choice.library, options, content(folder), on_card))
        elif not rungs and left_out is None:
            left_out = f"{choice.provider} is not used: {_other_variant(name, choice.provider, known)}"
    return tuple(rungs), left_out


def _nothing_behind(left_out: str | None, rungs: Sequence[Rung], sentence: str) -> str:
    told = f"if {rungs[-1].provider} fails, there is nothing to fall back to: {sentence}"
    return told if left_out is None else f"{left_out}; {told}"


def _falling_softly(spec: Spec, station: Station, machine: Machine, known: Catalogue) -> Spec:
    """Leave out the processor where all others are on a card, and the model could never be in the box's memory."""
    *others, last = spec.rungs
    if machine.memory_bytes is None or last.own_memory or not others or not all(rung.own_memory for rung in others):
        return spec
    need = footprint(last.folder, slots=spec.slots, answer_tokens=spec.default_max_tokens)
    refusal = preflight({f"models.{station}": need}, total=machine.memory_bytes, available=None, known=known)
    if refusal is None:
        return spec
    return replace(spec, rungs=tuple(others), left_out=_nothing_behind(spec.left_out, others, refusal))


def _made_for_another(name: str, made: str, known: Catalogue) -> str:
    told = name if name in known else "the model"
    return (
        f"{made} is not used: {told} was made for it, and may not load on the processor: see in `edge-slm doctor` what "
        "it lacks here, or name a model that was made for the processor"
    )


def _other_variant(name: str, provider: str, known: Catalogue) -> str:
    if name in known and provider in known[name].variants:
        return f"run `edge-slm models pull {name} --provider {provider}`, and restart the box"
    told = name if name in known else "the model"
    return f"{told} was not made for it, and nothing else is to be had: name a model that was"


def _check_memory(specs: Mapping[Station, Spec], machine: Machine, available: int | None, known: Catalogue) -> None:
    """Look whether the models fit into the memory; those that run on a graphics card of their own are its business.

    Raises:
        ModelError: they do not.

    """
    needs = {
        f"models.{station}": footprint(spec.rungs[0].folder, slots=spec.slots, answer_tokens=spec.default_max_tokens)
        for station, spec in specs.items()
        if not spec.rungs[0].own_memory
    }
    if needs and machine.memory_bytes is not None:
        refusal = preflight(needs, total=machine.memory_bytes, available=available, known=known)
        if refusal is not None:
            raise ModelError(refusal)


def cloud_engine(settings: Settings, books: "Books", keeps: Callable[[Job], bool]) -> Remote | None:
    """Build the engine that sends jobs away; None where that is not configured, and then nothing here could.

    Args:
        settings: the box's.
        books: what may be spent, and who is told of what leaves.
        keeps: whether a job's camera is to be kept here, as it is told now.

    Raises:
        UserError: its key cannot be read.

    """
    if not settings.cloud.enabled or settings.placement == "local_only":
        return None
    from agent.engines.cloud.engine import CloudEngine  # noqa: PLC0415  it takes 4 MB

    try:
        return CloudEngine(
            settings.cloud, cloud_key(settings), books, keeps, default_max_tokens=settings.limits.max_tokens
        )
    except ValueError as wrong:
        raise UserError(f"cloud: {wrong}") from None


def cloud_key(settings: Settings) -> str | None:
    """Read what is shown to the cloud, if there is one and it wants to see something.

    Raises:
        UserError: it cannot be read.

    """
    if not settings.cloud.enabled or settings.placement == "local_only":
        return None
    key = secret("cloud.api_key_file", settings.cloud.api_key, settings.cloud.api_key_file)
    if key is not None:
        key = key.strip()
        if not (key and key.isascii() and key.isprintable()):
            raise UserError(
                "cloud.api_key: it is empty, or has signs in it that no key has: write it again, in one line"
            )
    return key


def lines(settings: Settings, engines: Mapping[Station, Engine], cloud: Remote | None) -> dict[Station, Line]:
    """Build the lines for the engines of this box, and for the one elsewhere."""
    cameras: dict[Camera, Starts] = {}

    def parts() -> tuple[Queue, Estimator, Saturation]:
        marks = settings.saturation
        return (
            Queue(settings.queue.max_jobs, settings.queue.max_jobs_per_client, cameras),
            Estimator(settings.limits.max_tokens),
            Saturation(
                wait_s=marks.wait_s,
                available_bytes=marks.available_bytes,
                memory_pressure=marks.memory_pressure,
                temperature_c=marks.temperature_c,
            ),
        )

    found: dict[Station, Line] = {station: Line(engine, *parts()) for station, engine in engines.items()}
    if cloud is not None:
        found["cloud"] = CloudLine(cloud, *parts())
    return found
