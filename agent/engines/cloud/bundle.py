"""Some files as one piece of bytes, on their way to the process that makes pictures small, and back."""

import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise

# With this exit code (EX_DATAERR) the process has refused the pictures: of the two files that come back, the first is
# the refusal's code, the second its sentence.
REFUSED = 65

_NUMBER = struct.Struct("<I")


def pack(files: Sequence[bytes]) -> bytes:
    """Join files: how many, their lengths, themselves."""
    return b"".join((*map(_NUMBER.pack, (len(files), *map(len, files))), *files))


def unpack(data: bytes) -> list[bytes]:
    """Return the files that `pack` has joined.

    Raises:
        ValueError: there is less than it has joined, or more.

    """
    try:
        (count,) = _NUMBER.unpack_from(data)
        lengths = struct.unpack_from(f"<{count}I", data, _NUMBER.size)
    except struct.error as error:
        raise ValueError("the lengths are cut off") from error
    ends = list(accumulate(lengths, initial=(1 + count) * _NUMBER.size))
    if ends[-1] != len(data):
        raise ValueError("the files are cut off, or there is more")
    return [data[begin:end] for begin, end in pairwise(ends)]
