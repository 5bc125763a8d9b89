"""What a job may ask of the window and of the memory, and the refusals that say so in numbers."""

from pathlib import Path

from agent.contract.errors import Code, JobError

# Left to the rest of the box: the daemon and a broker need about 100 MB, the activations of a prefill slice
# about as much, and a kernel without page cache reads the model's weights from disk over and over.
RESERVE = 256 << 20
# Caches grow like a vector, by a quarter: a conversation's next turns, each longer than the last, find their
# prefix in a cache that they fit into, and are computed anew only once in a while.
_GROWTH = 4
# Rounding makes caches of jobs of similar length interchangeable. It costs at most 12 MB for SmolLM2-135M and
# 200 MB for Phi-3.5-mini.
_STEP = 256


def answer_tokens(prompt: int, asked: int | None, default: int, context: int) -> int:
    """Return how many tokens the answer to a prompt of ``prompt`` tokens may have.

    A job that does not say gets the default, or what is left of the window.

    Raises:
        JobError: prompt and answer do not fit into the window.

    """
    if asked is None and prompt < context:
        return min(default, context - prompt)
    answer = default if asked is None else asked
    if prompt + answer > context:
        raise JobError(
            Code.TOO_LARGE,
            f"the prompt has {prompt:,} tokens and the answer may have {answer:,}: together {prompt + answer:,}, "
            f"and the model's window is {context:,}",
        )
    return answer


def capacity(need: int, context: int) -> int:
    """Return the size, in tokens, of a new cache for a job that needs ``need``."""
    grown = need + need // _GROWTH
    return min(-(-grown // _STEP) * _STEP, context)


def out_of_memory(need: int, available: int) -> JobError:
    """Build the refusal of a job whose cache of ``need`` bytes does not fit into ``available``."""
    return JobError(
        Code.OUT_OF_MEMORY,
        f"the job's KV cache needs {_mib(need)} and the box has {_mib(max(available - RESERVE, 0))} to spare: "
        "shorten the prompt, lower max_tokens, or try again when other jobs have ended",
    )


def available_bytes() -> int:
    """Return how much memory the kernel would give away without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    raise OSError("/proc/meminfo does not tell MemAvailable: Linux 3.14 or newer is needed")


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"
