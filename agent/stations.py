"""The stations of a box, as they are configured: an engine each, and the line for it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from agent.admission import Camera, Queue, Saturation, Starts
from agent.contract.jobs import Job
from agent.credentials import secret
from agent.engines.base import Engine, Remote
from agent.engines.local import LocalEngine
from agent.errors import UserError
from agent.forecast import Estimator
from agent.line import CloudLine, Line
from agent.models.catalogue import ModelError
from agent.models.store import describe, resolve
from agent.placement import Station
from agent.settings import Settings

if TYPE_CHECKING:
    from agent.engines.cloud.books import Books


def local_engines(settings: Settings) -> dict[Station, Engine]:
    """Build an engine for each configured model.

    Raises:
        ModelError: a model is not there, or cannot do what it is configured for.

    """
    wanted: dict[Station, tuple[str | None, int]] = {
        "text": (settings.models.text, settings.engine.slots),
        "vision": (settings.models.vision, settings.engine.vision_slots),
    }
    folders = {station: resolve(name, settings.models_dir) for station, (name, _) in wanted.items() if name is not None}
    if "vision" in folders and "image" not in describe(folders["vision"]).modalities:
        name = settings.models.vision
        raise ModelError(f"models.vision: {name} reads text alone; name a model that takes pictures, or set it to null")
    if len(folders) > len({*folders.values()}):
        raise ModelError("models.text and models.vision are the same: set models.text to null, and it serves both")
    return {
        station: LocalEngine(
            # Of a folder only its name is told: where it lies is nobody's business on the wire.
            folder.name,
            folder,
            slots=wanted[station][1],
            threads=settings.engine.threads,
            default_max_tokens=settings.limits.max_tokens,
            leak_bytes=settings.engine.leak_bytes,
        )
        for station, folder in folders.items()
    }


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

    key = secret("cloud.api_key_file", settings.cloud.api_key, settings.cloud.api_key_file)
    if key is not None:
        key = key.strip()
        if not (key and key.isascii() and key.isprintable()):
            raise UserError(
                "cloud.api_key: it is empty, or has signs in it that no key has: write it again, in one line"
            )
    try:
        return CloudEngine(settings.cloud, key, books, keeps, default_max_tokens=settings.limits.max_tokens)
    except ValueError as wrong:
        raise UserError(f"cloud: {wrong}") from None


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
