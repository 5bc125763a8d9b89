"""Whether a picture may come in, by its first and last bytes: 671 KB of JPEG can be 176 megapixels.

Nobody decodes it here. That is native code on foreign bytes, and is left to the worker.
"""

import binascii
import re

from agent.contract import headers
from agent.contract.errors import Code, JobError

# What cameras and browsers send. Each further format would be another native parser that strangers can reach.
FORMATS = ("JPEG", "PNG", "GIF")
# A smaller one shows nothing that a model could name: one crop has 336 pixels a side.
_LEAST_SIDE = 16
# A strip that is longer leaves fewer than 21 rows of a crop. Panoramas have ratios of up to 8.
_MOST_RATIO = 16
_DATA_URI = re.compile(
    r"data:(?:image/([a-z+.-]{1,20}))?((?:;[a-z-]{1,20}=[^;,]{1,40}){0,4})(;base64)?,", re.IGNORECASE
)
_MEDIA_TYPES = {"jpeg": "JPEG", "jpg": "JPEG", "pjpeg": "JPEG", "png": "PNG", "x-png": "PNG", "gif": "GIF"}
_IN_LINES = frozenset(" \r\n\t")
_SPACES = {ord(each): None for each in _IN_LINES}
# The longest line that anything breaks base64 into is 76 characters.
_LINE = 80


def judge(data: bytes, most_pixels: int, said: str | None = None) -> None:
    """Look at a picture's header and its end.

    Args:
        data: the file.
        most_pixels: how many it may have.
        said: the format that its sender claims, if any.

    Raises:
        JobError: it is not a whole picture of a known format, or too large; the message says what to do.

    """
    if not data:
        raise _bad("the picture is empty")
    try:
        found, width, height = headers.read(data)
    except headers.HeaderError as error:
        raise _bad(f"the picture cannot be used, {error}: send a whole JPEG, PNG or GIF, alone") from None
    if said is not None and said != found:
        raise _bad(f"the picture is called a {said} and is a {found}: name it what it is")
    if min(width, height) < _LEAST_SIDE:
        raise _bad(f"the picture has {width}x{height} pixels, and each side needs at least {_LEAST_SIDE}")
    if width * height > most_pixels:
        raise JobError(
            Code.TOO_LARGE,
            f"the picture has {width:,}x{height:,} pixels, and at most {most_pixels:,} in all are decoded here: "
            "scale it down before you send it",
        )
    if max(width, height) > _MOST_RATIO * min(width, height):
        raise _bad(f"the picture has {width}x{height} pixels: no side may be over {_MOST_RATIO} times the other")


def from_text(text: str) -> tuple[bytes, str | None]:
    """Read base64, or a data URI with base64 in it; return the bytes, and the format that the URI names.

    Raises:
        JobError: it is neither.

    """
    said = None
    if text[:5].lower() == "data:":
        uri = _DATA_URI.match(text)
        if uri is None or uri[3] is None:
            raise _bad("a picture's data URI begins `data:image/jpeg;base64,` (or png, or gif)")
        if uri[1] is not None:
            said = _MEDIA_TYPES.get(uri[1].lower(), uri[1])
        text = text[uri.end() :]
    elif "://" in text[:16]:
        raise _bad("this box fetches nothing: send the picture itself, as base64 or as a data URI")
    if not text.isascii():  # found at once; `translate` would take 0.2 s to come to it through 8 MB
        raise _bad("the picture is not base64")
    if not _IN_LINES.isdisjoint(text[:_LINE]):  # as `base64 FILE` prints it
        text = text.translate(_SPACES)
    try:
        return binascii.a2b_base64(text, strict_mode=True), said
    except ValueError:
        raise _bad("the picture is not base64") from None


def _bad(sentence: str) -> JobError:
    return JobError(Code.BAD_REQUEST, sentence)
