"""What a picture's first and last bytes say, before anybody decodes it: 671 KB of JPEG can be 176 megapixels.

Only headers are read here, by Pillow, in under a millisecond. Decoding is native code on foreign bytes, and is left
to the worker.
"""

import binascii
import re
import warnings
from io import BytesIO

from PIL import Image

from agent.contract.errors import Code, JobError

# What cameras and browsers send. Each further format would be another native parser that strangers can reach.
FORMATS = ("JPEG", "PNG", "GIF")
# A smaller one shows nothing that a model could name: one crop has 336 pixels a side.
_LEAST_SIDE = 16
# A strip that is longer leaves fewer than 21 rows of a crop. Panoramas have ratios of up to 8.
_MOST_RATIO = 16
# How each format ends. What follows is another file, hidden from whoever looks at the picture, or the picture is cut.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
# Cameras pad their buffers, and streams leave the line end before their next boundary.
_PADDING = b"\0\xff\r\n"
_DATA_URI = re.compile(
    r"data:(?:image/([a-z+.-]{1,20}))?((?:;[a-z-]{1,20}=[^;,]{1,40}){0,4})(;base64)?,", re.IGNORECASE
)
_MEDIA_TYPES = {"jpeg": "JPEG", "jpg": "JPEG", "pjpeg": "JPEG", "png": "PNG", "x-png": "PNG", "gif": "GIF"}
_SPACES = {ord(each): None for each in " \r\n\t"}


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
        with warnings.catch_warnings():
            # Pillow's own opinion on size; ours comes next, and is configured.
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=FORMATS) as picture:
                found, (width, height) = picture.format or "", picture.size
    except Image.DecompressionBombError:
        most = f"at most {most_pixels:,} pixels are decoded here, and the picture has several times as many"
        raise JobError(Code.TOO_LARGE, f"{most}: scale it down before you send it") from None
    except Exception:  # noqa: BLE001  Pillow raises whatever its parsers trip over
        raise _bad("this is no JPEG, PNG or GIF, or its header is damaged") from None
    found = "JPEG" if found == "MPO" else found
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
    if not data.rstrip(_PADDING).endswith(_ENDS[found]):
        raise _bad(f"the {found} is cut off, or has other data after its end: send the whole picture, alone")


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
    try:
        return binascii.a2b_base64(text, strict_mode=True), said
    except ValueError:
        pass
    try:  # as `base64 FILE` prints it, in lines
        return binascii.a2b_base64(text.translate(_SPACES), strict_mode=True), said
    except ValueError:
        raise _bad("the picture is not base64") from None


def _bad(sentence: str) -> JobError:
    return JobError(Code.BAD_REQUEST, sentence)
