"""What a job may ask of the window and of the memory, and the refusals that say so in numbers."""

from collections.abc import Sequence

from agent import kernel_files
from agent.contract.errors import Code, JobError
from agent.engines.worker.pictures import Picture

# Left to the rest of the box: the daemon and a broker need about 100 MB, the activations of a prefill slice
# about as much, and a kernel without page cache reads the model's weights from disk over and over.
RESERVE = 256 << 20
# Caches grow like a vector, by a quarter: a conversation's next turns, each longer than the last, find their
# prefix in a cache that they fit into, and are computed anew only once in a while.
_GROWTH = 4
# Rounding makes caches of jobs of similar length interchangeable. It costs at most 12 MB for SmolLM2-135M and
# 200 MB for Phi-3.5-mini.
_STEP = 256


def answer_tokens(prompt: int, asked: int | None, default: int, context: int, image: int = 0) -> int:
    """Return how many tokens the answer to a prompt of ``prompt`` tokens, ``image`` of them pictures', may have.

    A job that does not say gets the default, or what is left of the window.

    Raises:
        JobError: prompt and answer do not fit into the window.

    """
    if asked is None and prompt < context:
        return min(default, context - prompt)
    answer = default if asked is None else asked
    if prompt + answer > context:
        pictures = f", {image:,} of them its pictures'," if image else ""
        advice = ": lower the pictures' detail, or send fewer" if image else ""
        raise JobError(
            Code.TOO_LARGE,
            f"the prompt has {prompt:,} tokens{pictures} and the answer may have {answer:,}: together "
            f"{prompt + answer:,}, and the model's window here is {context:,}{advice}",
        )
    return answer


def window(context: int, token_bytes: int, memory: int) -> int:
    """Return how much of a model's window of ``context`` tokens could be held at the best of times.

    Args:
        context: the window of the model.
        token_bytes: what a token takes in a cache, of the box's memory; 0 if nothing.
        memory: all that there is beside the model's weights, in bytes.

    """
    return min(context, max((memory - RESERVE) // token_bytes, _STEP)) if token_bytes else context


def capacity(need: int, context: int) -> int:
    """Return the size, in tokens, of a new cache for a job that needs ``need``."""
    grown = need + need // _GROWTH
    return min(-(-grown // _STEP) * _STEP, context)


def picture_bytes(pictures: Sequence[Picture]) -> int:
    """Return how much memory it takes to make pictures ready for the model, at the most.

    They are decoded one after another. Their crops are there three times while the library takes them over.
    """
    return max(picture.bytes for picture in pictures) + 3 * sum(picture.crop_bytes for picture in pictures)


def out_of_memory(need: int, available: int, image: int = 0) -> JobError:
    """Build the refusal of a job whose ``need`` bytes, ``image`` of them for pictures, exceed the ``available``."""
    pictures = f" and its pictures {_mib(image)}," if image else ""
    advice = " lower the pictures' detail," if image else ""
    return JobError(
        Code.OUT_OF_MEMORY,
        f"the job's KV cache needs {_mib(need - image)}{pictures} and the box has "
        f"{_mib(max(available - RESERVE, 0))} to spare:{advice} shorten the prompt, lower max_tokens, "
        "or try again when other jobs have ended",
    )


def available_bytes() -> int:
    """Return how much memory could be had without swapping, by the box's measure or its cgroup's, whichever is less."""
    available = kernel_files.available_bytes()
    if available is None:
        raise OSError("/proc/meminfo does not tell MemAvailable: Linux 3.14 or newer is needed")
    return available


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"
