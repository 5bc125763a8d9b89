"""How much memory a model needs, and whether a box has it: a refusal in numbers instead of a kill in the night.

What a file says of its size is not what it takes once it is loaded: onnxruntime packs the weights anew for the
processor's matrix instructions. Measured on x86-64, the worker's resident memory after the load: SmolLM2-135M, 113 MB
of weights, 248 MB; the test model that sees, 5 MB, 81 MB; Phi-3.5-mini in 4 bits (random weights), 2.78 GB, 3.4 to 3.8
GB. `footprint` says 243 MB, 91 MB and 4.0 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.models.catalogue import CPU, ModelError
from agent.models.store import read_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.models.catalogue import Catalogue

RESERVE = 256 << 20
"""Left to the rest of the box, as the worker leaves it: the daemon, a broker, pages of the model's files."""

_PROCESS = 80 << 20
_PACKED = 1.4
# KV caches hold float32 on CPU.
_FLOAT_BYTES = 4
# A picture at detail auto, 4 crops of 336 pixels: (h·w + 1)·144 + 1 + (h + 1)·12 tokens for 2 by 2.
_PICTURE_TOKENS = 757
# The vision tower at 4 crops and a whole view; beside weights of gigabytes a guess is good enough.
_PICTURE_BYTES = 256 << 20
# Where nothing fits, by whether there is another model, and whether it is the one that sees.
_LAST = {
    (True, True): "set models.vision to null, and send pictures to the cloud, or take a box with more memory",
    (True, False): "set models.text to null, or take a box with more memory",
    (False, True): "name a text model instead, and send pictures to the cloud, or take a box with more memory",
    (False, False): "take a box with more memory",
}
_SLOTS = {"models.text": "engine.slots", "models.vision": "engine.vision_slots"}


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory that a model takes, in bytes.

    Attributes:
        loaded: before its first job.
        cache: of one job's keys and values.
        slots: how many jobs may run at a time.
        pictures: besides, while one is looked at.

    """

    loaded: int
    cache: int
    slots: int
    pictures: int = 0

    @property
    def total(self) -> int:
        """With all jobs that may run."""
        return self.loaded + self.slots * self.cache + self.pictures


def footprint(folder: Path, *, slots: int, answer_tokens: int) -> Footprint:
    """Reckon what the model in a folder takes on CPU.

    Args:
        folder: the model's.
        slots: how many jobs may run at a time.
        answer_tokens: the longest answer of a job that does not say. A job is reckoned with a prompt as long as its
            answer; one that asks for more is judged when it comes, by what is free then.

    Raises:
        ModelError: its configuration or its files cannot be read.

    """
    model = read_config(folder)["model"]
    try:
        files = sum(file.stat().st_size for file in folder.rglob("*.onnx*") if file.is_file())
        decoder = model.get("decoder", {})
        layers, heads, size = (
            int(decoder.get(name, 0)) for name in ("num_hidden_layers", "num_key_value_heads", "head_size")
        )
        context = int(model["context_length"])
    except OSError as error:
        raise ModelError(f"{folder} cannot be read ({error.strerror}): check its owner") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder} has no usable {error} in its configuration: fetch or build it again") from error
    sees = "vision" in model
    tokens = min(context, 2 * answer_tokens + (_PICTURE_TOKENS if sees else 0))
    return Footprint(
        loaded=_PROCESS + int(_PACKED * files),
        cache=2 * layers * heads * size * _FLOAT_BYTES * tokens,
        slots=slots,
        pictures=_PICTURE_BYTES if sees else 0,
    )


def fits(needed: int, total: int) -> bool:
    """Whether so many bytes fit into a box with ``total``."""
    return needed <= total - RESERVE


def preflight(needs: Mapping[str, Footprint], *, total: int, available: int | None, known: Catalogue) -> str | None:
    """Tell why the models of a box do not fit into its memory together, and what would; None if they do.

    All that is configured must fit into the box. What is free now must be enough to load the models; jobs are judged
    when they come.

    Args:
        needs: by the keys of the configuration, ``models.text`` and ``models.vision``.
        total: the box's memory, or its cgroup's, in bytes.
        available: what is free of it; None where that is not known, or says nothing, as while old workers still run.
        known: the catalogue, for models that would fit.

    """
    needed, loaded = (sum(sizes) for sizes in zip(*((each.total, each.loaded) for each in needs.values()), strict=True))
    if not fits(needed, total):
        parts = " and ".join(f"{key} {_told(each)}" for key, each in needs.items())
        return (
            f"the models need {_gb(needed)} of memory and this box can give them {_gb(max(0, total - RESERVE))} "
            f"({parts}): {_advice(needs, total, known)}"
        )
    if available is not None and loaded > available:
        return (
            f"the models take {_gb(loaded)} of memory to load, and of the box's {_gb(total)} only {_gb(available)} are "
            "free now: end what has the rest, or name smaller models"
        )
    return None


def _advice(needs: Mapping[str, Footprint], total: int, known: Catalogue) -> str:
    needed = sum(each.total for each in needs.values())
    largest = max(needs, key=lambda key: needs[key].total)
    each = needs[largest]
    rest = needed - each.total
    for slots in range(each.slots - 1, 0, -1):
        if fits(rest + each.total - (each.slots - slots) * each.cache, total):
            return f"set {_SLOTS[largest]} to {slots}"
    sees = largest == "models.vision"
    smaller = sorted(
        (entry.variants[CPU].memory, name)
        for name, entry in known.items()
        if CPU in entry.variants
        and not entry.test
        and ("image" in entry.modalities) == sees
        and fits(rest + entry.variants[CPU].memory, total)
    )
    ways = []
    if smaller:
        ways.append(f"set {largest} to a model that fits: {', '.join(name for _, name in reversed(smaller))}")
    if len(needs) > 1 and fits(needs["models.vision"].total, total):
        ways.append("set models.text to null, if the vision model is to answer text, too")
    if ways:
        return ", or ".join(ways)
    return f"no model of the catalogue that {'sees' if sees else 'is smaller'} fits: {_LAST[len(needs) > 1, sees]}"


def _told(need: Footprint) -> str:
    jobs = "1 job" if need.slots == 1 else f"{need.slots} jobs"
    pictures = f", a picture {_gb(need.pictures)}" if need.pictures else ""
    return f"{_gb(need.loaded)}, caches of {jobs} {_gb(need.slots * need.cache)}{pictures}"


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
