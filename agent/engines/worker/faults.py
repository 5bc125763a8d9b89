"""What the library raises, and the end of the job that it happened to."""

import sys

from agent.contract.errors import Code, JobError

# std::bad_alloc and every other C++ exception, as pybind11 translates them.
NATIVE = (RuntimeError, MemoryError)


class DeviceLost(Exception):  # noqa: N818  it tells what happened
    """The provider computes nothing any more. The worker is to end: its parent goes on with another provider."""


def translated(error: Exception) -> JobError:
    """Turn what the library raised into the job's end; the details go to the log."""
    # Standard error is the parent's debug log. After the first line, the library may quote the answer.
    print(f"the runtime failed on a job: {str(error).partition(chr(10))[0]}", file=sys.stderr)  # noqa: T201
    if isinstance(error, MemoryError) or "alloc" in str(error):
        return JobError(Code.OUT_OF_MEMORY, "the runtime ran out of memory on this job: shorten it, or try again later")
    return JobError(Code.INTERNAL, "the model's runtime failed on this job; see the agent's log at level debug")
