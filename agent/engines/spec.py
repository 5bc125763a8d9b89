"""What a local engine is, as values that can be compared."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to run a model.

    Attributes:
        provider: ``cpu``, or the execution provider's name as onnxruntime-genai's ``Config.append_provider`` takes it.
        folder: where the genai_config.json of the model's variant for it is.
        why: one sentence: why it is, or would be, used.
        library: the package whose ``get_library_path()`` is to be registered; None where the provider is built in.
        options: the provider's own, by their names.
        content: what the folder held, as `agent.models.content` tells it: another model may have come to its place.
        own_memory: whether it computes in a memory of its own, a graphics card's, and not in the box's.

    """

    provider: str
    folder: Path
    why: str = ""
    library: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    content: str = ""
    own_memory: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """A local engine: two that are equal would do the same.

    Attributes:
        name: the model's name, for people.
        rungs: how it may be run, the preferred way first; the last is the processor, where that can run it.
        slots: how many jobs run at the same time; each has a KV cache of its own.
        threads: of one inference step; None takes half of what the kernel counts as processors.
        default_max_tokens: the longest answer of a job that does not say.
        leak_bytes: how far a worker's memory may grow before it is replaced; None takes a quarter of the box's,
            or of what its cgroup may have.
        left_out: one sentence on why a better rung, or the processor behind them, is not among them, if it could be.

    """

    name: str
    rungs: tuple[Rung, ...]
    slots: int
    threads: int | None
    default_max_tokens: int
    leak_bytes: int | None = None
    left_out: str | None = None

    def arguments(self, rung: Rung) -> list[str]:
        """Return what a worker is told that runs it so."""
        told = [str(rung.folder), "--slots", str(self.slots), "--max-tokens", str(self.default_max_tokens)]
        if self.threads is not None:
            told += ["--threads", str(self.threads)]
        if rung.provider != "cpu":
            told += ["--provider", rung.provider, "--provider-options", json.dumps(dict(rung.options))]
        if rung.library is not None:
            told += ["--provider-library", rung.library]
        if rung.own_memory:
            told.append("--own-memory")
        return told
