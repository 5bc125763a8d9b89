"""What the box says of itself: the retained ``info``, and ``metrics`` every few seconds."""

import platform
from collections.abc import Mapping
from dataclasses import asdict

from agent import __version__
from agent.admission import Signals
from agent.contract import VERSION
from agent.contract.events import encode
from agent.engines.base import Health
from agent.line import Load
from agent.metrics import Counters, resident_bytes
from agent.placement import LOCAL, Station
from agent.settings import Cloud, Settings

# Of a box's models, the state that tells most of what it can do.
_STATES = ("ready", "loading", "failed")


def info(settings: Settings, healths: Mapping[Station, Health]) -> bytes:
    """Build the birth message: what this box is and what it can do now."""
    models = [
        {
            "name": health.model,
            "state": health.state,
            "modalities": ["text", "image"] if station == "vision" else ["text"],
            "provider": health.provider,
            "provider_detail": health.provider_detail,
            "context": health.context,
            "detail": health.detail,
        }
        for station, health in healths.items()
        if station in LOCAL
    ]
    limits = settings.limits.model_dump() | {
        "max_jobs": settings.queue.max_jobs,
        "slots": settings.engine.slots,
        "vision_slots": settings.engine.vision_slots,
    }
    return encode(
        {
            "v": VERSION,
            "node": settings.device.id,
            "pool": settings.pool,
            "version": __version__,
            "state": min((str(model["state"]) for model in models), key=_STATES.index),
            "models": models,
            "cloud": _endpoint(settings.cloud) if "cloud" in healths else None,
            "limits": limits,
            "platform": f"{platform.system()} {platform.machine()}",
        }
    )


def metrics(
    node: str,
    loads: Mapping[Station, Load],
    counters: Counters,
    mqtt: Mapping[str, int],
    *,
    engine_bytes: Mapping[Station, int],
    signals: Signals,
    cloud: dict[str, object] | None,
    rate: float,
    unsent: int,
) -> bytes:
    """Build a ``metrics`` message.

    Args:
        node: the box's name.
        loads: how busy each engine is.
        counters: of jobs, since the start.
        mqtt: of the session, since the start.
        engine_bytes: resident memory of each engine's process.
        signals: how the box is.
        cloud: how the endpoint elsewhere is, if there is one.
        rate: tokens a second produced since the last message.
        unsent: finals that wait for the broker.

    """
    local = [load for station, load in loads.items() if station in LOCAL]
    waits = [load.predicted_wait_s for load in local if load.predicted_wait_s is not None]
    memory = {
        "agent_bytes": resident_bytes(),
        "engine_bytes": sum(engine_bytes.values()),
        "available_bytes": signals.available_bytes,
        "pressure": signals.memory_pressure,
    }
    return encode(
        {
            "v": VERSION,
            "node": node,
            "queued": sum(load.queued for load in loads.values()),
            "active": sum(load.active for load in loads.values()),
            "saturated": any(load.saturated is not None for load in local),
            "predicted_wait_s": max(waits, default=None),
            "engines": {name: asdict(load) | {"bytes": engine_bytes[name]} for name, load in loads.items()},
            "unsent": unsent,
            "tokens_per_s": round(rate, 2),
            "memory": memory,
            "temperature_c": signals.temperature_c,
            "throttled": signals.throttled,
            "cloud": cloud,
            "counters": counters.as_dict(),
            "mqtt": dict(mqtt),
        }
    )


def cloud(health: Health, left: Mapping[str, object]) -> dict[str, object]:
    """Describe the endpoint elsewhere for ``metrics``, with what is ``left`` of its budget."""
    return {"state": health.state, "detail": health.detail, "budget_left": left}


def _endpoint(settings: Cloud) -> dict[str, object]:
    return {
        "preset": settings.preset,
        "text_model": settings.text_model,
        "vision_model": settings.vision_model,
        "frames_to_cloud": settings.frames_to_cloud,
    }
