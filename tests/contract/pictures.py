"""Pictures as files, for whoever sends some."""

import base64
from io import BytesIO

from PIL import Image


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return a picture as a file."""
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def plain(width: int = 32, height: int = 24, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """Return a picture of one colour, as a file."""
    return encoded(Image.new(mode, (width, height)), kind)


def text(data: bytes) -> str:
    """Return base64."""
    return base64.b64encode(data).decode()


PNG, JPEG, GIF = (plain(kind=kind) for kind in ("PNG", "JPEG", "GIF"))
