"""A picture's format, size and end, from its markers alone.

Pillow could tell the size too, but reads everything before the pixels for it: on files made for that, it took up to
17 s for 8 MiB. Here the number of steps is bounded, and a file that needs more of them is refused, so that the worker
is spared it as well.
"""

from collections.abc import Iterator
from typing import NamedTuple

# JPEGs of phones have a hundred segments of colour profile and depth map before their pixels.
_MOST_SEGMENTS = 256
# Before its pixels a PNG has a palette, a profile (each may unpack to 1 MiB), some texts. libpng writes the pixels in
# chunks of 8 KB: 1,024 of them in 8 MiB.
_MOST_EARLY_CHUNKS, _MOST_CHUNKS = 32, 4096
# A progressive JPEG has about ten scans, a hidden second picture as many. Each is a pass over all pixels.
_MOST_SCANS = 100
# Cameras pad their buffers, and streams leave the line end before their next boundary.
_PADDING = b"\0\xff\r\n"
_PNG = b"\x89PNG\r\n\x1a\n"
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOS = 0xDA
# Application data, comments, tables. Any other marker has no length, or parsers disagree on whether it has one.
_SKIPPED = frozenset({*range(0xE0, 0xF0), 0xFE, 0xDB, 0xC4, 0xCC, 0xDD})


class Header(NamedTuple):
    """What a picture says of itself."""

    format: str
    width: int
    height: int


class HeaderError(Exception):
    """The file is no whole picture; the message says what is wrong with it."""


def read(data: bytes) -> Header:
    """Read a JPEG's, a PNG's or a GIF's header, and look at its end.

    Raises:
        HeaderError: it is none of them, or cut off, or has more after its end.

    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(_PNG):
            return _png(data)
        if data.startswith((b"GIF87a", b"GIF89a")):
            return _gif(data)
    except IndexError:
        raise HeaderError("it is cut off within its header") from None
    raise HeaderError("it is no JPEG, PNG or GIF")


def _jpeg(data: bytes) -> Header:
    """Walk the segments to the one that begins a frame (ITU-T T.81, B.1.1)."""
    frames = [at for marker, at in _segments(data) if marker in _SOF]
    if len(frames) != 1:  # a second one would override the first one's size
        raise HeaderError("its header has no size, or several")
    if data.count(bytes((0xFF, _SOS))) > _MOST_SCANS:
        raise HeaderError(f"it has more than {_MOST_SCANS} scans")
    if not data.rstrip(_PADDING).endswith(b"\xff\xd9"):
        raise HeaderError("it is cut off, or has other data after its end")
    return Header("JPEG", _big(data, frames[0] + 5, 2), _big(data, frames[0] + 3, 2))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers up to the first scan, and where the segment of each is."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        marker = data[at + 1] if data[at] == 0xFF else 0  # noqa: PLR2004  what every marker begins with
        if marker == _SOS:
            return
        if marker == 0xFF:  # noqa: PLR2004  a fill byte before a marker
            at += 1
        elif marker in _SOF or marker in _SKIPPED:
            yield marker, at + 2
            at += 2 + _big(data, at + 2, 2)
        else:
            raise HeaderError("its header is damaged")
    raise HeaderError(f"its header has more than {_MOST_SEGMENTS} segments")


def _png(data: bytes) -> Header:
    """Walk the chunks to the last one (PNG specification, 5.2 and 5.3)."""
    if data[12:16] != b"IHDR":
        raise HeaderError("its header has no size")
    at, pixels = len(_PNG), False
    for number in range(_MOST_CHUNKS):
        name, at = data[at + 4 : at + 8], at + 12 + _big(data, at, 4)
        pixels = pixels or name == b"IDAT"
        if not pixels and number == _MOST_EARLY_CHUNKS:
            raise HeaderError(f"its header has more than {_MOST_EARLY_CHUNKS} chunks")
        if name == b"IEND":
            if at > len(data) or data[at:].strip(_PADDING):
                raise HeaderError("it is cut off, or has other data after its end")
            return Header("PNG", _big(data, 16, 4), _big(data, 20, 4))
    raise HeaderError(f"it has more than {_MOST_CHUNKS:,} chunks")


def _gif(data: bytes) -> Header:
    """Walk the blocks to the first frame, which may be larger than the screen (GIF89a, 18 and 20)."""
    width, height = _little(data, 6), _little(data, 8)
    at, inside = 13 + _table(data[10]), False
    for _ in range(_MOST_SEGMENTS):
        if inside:  # an extension, whose parts end with one of no length
            inside = data[at] != 0
            at += data[at] + 1
        elif data[at] == 0x21:  # noqa: PLR2004  an extension's introducer; its label comes next
            inside, at = True, at + 2
        elif data[at] == 0x2C:  # noqa: PLR2004  a frame
            right, bottom = (_little(data, at + side) + _little(data, at + 4 + side) for side in (1, 3))
            if not data.rstrip(_PADDING).endswith(b";"):
                raise HeaderError("it is cut off, or has other data after its end")
            return Header("GIF", max(width, right), max(height, bottom))
        else:
            break
    raise HeaderError("its header has no size")


def _table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _big(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + size], "big")


def _little(data: bytes, at: int) -> int:
    if at + 2 > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + 2], "little")
