"""What the box says of itself: the retained ``info``, and ``metrics`` every few seconds."""

import platform
from collections.abc import Mapping
from dataclasses import asdict

from agent import __version__
from agent.contract import VERSION
from agent.contract.events import encode
from agent.dispatcher import Load
from agent.engines.base import Health
from agent.metrics import Counters, available_bytes, resident_bytes, temperature_c
from agent.settings import Settings


def info(settings: Settings, health: Health) -> bytes:
    """Build the birth message: what this box is and what it can do now."""
    model = {
        "name": health.model,
        "state": health.state,
        "modalities": ["text"],
        "provider": health.provider,
        "context": health.context,
        "detail": health.detail,
    }
    limits = settings.limits.model_dump() | {"max_jobs": settings.queue.max_jobs, "slots": settings.engine.slots}
    return encode(
        {
            "v": VERSION,
            "node": settings.device.id,
            "version": __version__,
            "state": health.state,
            "models": [model],
            "limits": limits,
            "platform": f"{platform.system()} {platform.machine()}",
        }
    )


def metrics(
    node: str, load: Load, counters: Counters, mqtt: Mapping[str, int], *, engine_bytes: int, rate: float, unsent: int
) -> bytes:
    """Build a ``metrics`` message.

    Args:
        node: the box's name.
        load: how busy it is.
        counters: of jobs, since the start.
        mqtt: of the session, since the start.
        engine_bytes: resident memory of the engine's process.
        rate: tokens a second produced since the last message.
        unsent: finals that wait for the broker.

    """
    memory = {
        "agent_bytes": resident_bytes(),
        "engine_bytes": engine_bytes,
        "available_bytes": available_bytes(),
    }
    return encode(
        {
            "v": VERSION,
            "node": node,
            **asdict(load),
            "unsent": unsent,
            "tokens_per_s": round(rate, 2),
            "memory": memory,
            "temperature_c": temperature_c(),
            "counters": counters.as_dict(),
            "mqtt": dict(mqtt),
        }
    )
