"""``python -P -m agent.engines.cloud.shrink LIMIT``: pictures in, small JPEGs of what they show out.

It is a process of its own because decoding is native code on a stranger's bytes, which may crash, hang or fill the
memory. What comes out are new files, made of pixels alone. Where and when a picture was taken, by which camera, a small
copy of what was cut away, a comment, what follows the file's end: none of it is there to be forgotten.
"""

import resource
import signal
import sys
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from PIL import Image

from agent.contract.errors import Code, JobError
from agent.engines.cloud.bundle import REFUSED, pack, unpack
from agent.engines.worker import limits
from agent.engines.worker.pictures import Picture

# Phi-3.5-vision's closest look at one picture is at four crops of 336 pixels a side.
_SIDE = 4 * 336
# At so many, `Picture` decodes a large JPEG at a half, a quarter or an eighth, but not below `_SIDE`.
_CROPS = 4
# What is smaller shows nothing; the contract takes none in either.
_LEAST_SIDE = 16
_QUALITY = 80
# Smaller pictures have more bytes a pixel; without it, most would have to be encoded a third time.
_CAUTION = 0.95
# 25 million pixels, the most that come in by default, take up to 450 MB to decode (`Picture.bytes`); the interpreter
# with its libraries has 150 MB of addresses, of which it uses 30.
_ADDRESSES = 768 << 20
_CPU_S = 30
# Of 1000: short of memory, the kernel ends this process first.
_OOM_SCORE = "1000"
_NO_MEMORY = "the box has no memory left to make the picture small enough: send a smaller one, or try again"


def main() -> int:
    """Read pictures from standard input and write them to standard output. Return the exit code."""
    _bound()
    try:
        sys.stdout.buffer.write(pack(shrunk(unpack(sys.stdin.buffer.read()), int(sys.argv[1]))))
    except MemoryError:
        return _refuse(JobError(Code.OUT_OF_MEMORY, _NO_MEMORY))
    except JobError as error:
        return _refuse(error)
    return 0


def shrunk(files: list[bytes], limit: int) -> list[bytes]:
    """Return pictures as JPEGs whose base64 has less than ``limit`` characters, all of them together.

    Each may have an equal part of it, and what a small one leaves is for the others.

    Raises:
        JobError: one cannot be decoded, or they are too many.
        MemoryError: one takes more memory than there is.

    """
    pictures = [_decoded(file) for file in files]
    small = [_encoded(picture) for picture in pictures]
    left = limit - 1
    smallest_first = sorted(range(len(small)), key=lambda index: len(small[index]))
    for done, index in enumerate(smallest_first):
        share = left // (len(small) - done)
        small[index] = _fitted(pictures[index], small[index], share // 4 * 3)
        left -= -(-len(small[index]) // 3) * 4
    return small


def _fitted(picture: Image.Image, data: bytes, room: int) -> bytes:
    """Return a picture, which is ``data`` as it stands, made smaller until it has ``room`` bytes at the most."""
    while len(data) > room:
        scale = _CAUTION * (room / len(data)) ** 0.5
        width, height = (max(1, int(scale * side)) for side in picture.size)
        if max(width, height) < _LEAST_SIDE:
            raise JobError(Code.TOO_LARGE, "the job has too many pictures for the cloud: send fewer")
        picture = picture.resize((width, height))
        data = _encoded(picture)
    return data


def _decoded(file: bytes) -> Image.Image:
    """Return a picture's pixels, upright, at most `_SIDE` of them a side, with nothing else about it."""
    source = Picture(file, _CROPS)
    if source.bytes > limits.available_bytes() - limits.RESERVE:
        raise MemoryError
    picture = source.decode()
    picture.thumbnail((_SIDE, _SIDE))
    bare = Image.new("RGB", picture.size)
    bare.paste(picture)
    return bare


def _encoded(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _bound() -> None:
    """Take from this process what it does not need."""
    # Ctrl-C and SIGTERM reach the whole group; to the parent they mean a drain, in which running jobs end well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for limit, most in {
        resource.RLIMIT_AS: _ADDRESSES,
        resource.RLIMIT_CPU: _CPU_S,
        resource.RLIMIT_FSIZE: 0,  # it writes to a pipe alone
        resource.RLIMIT_CORE: 0,  # which would show the picture
    }.items():
        _, hard = resource.getrlimit(limit)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (bound, bound))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def _refuse(error: JobError) -> int:
    sys.stdout.buffer.write(pack([error.code.encode(), error.message.encode()]))
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
